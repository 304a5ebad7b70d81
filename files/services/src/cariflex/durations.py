"""ISO 8601 durations of days, hours, minutes and seconds, as OpenADR, FlexMeasures and our settings write them."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PATTERN = re.compile(r"P(?=.)(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.ASCII)


def parse_duration(text: object) -> timedelta:
    """Read a duration such as `PT1H` or `P1DT30M`.

    Years, months and weeks are refused: their length in seconds depends on the calendar or is better said in days.

    Raises:
        ValueError: `text` is not such a duration.
    """
    if isinstance(text, timedelta):
        return text
    match = _PATTERN.fullmatch(text) if isinstance(text, str) and len(text) <= 32 else None
    if match is None:
        raise ValueError("is not an ISO 8601 duration of days, hours, minutes and seconds")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise ValueError("is longer than any calendar") from None


def format_duration(duration: timedelta) -> str:
    """Write a duration of whole seconds in its shortest form: one hour is `PT1H`."""
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    date = f"{duration.days}D" if duration.days else ""
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    return f"P{date}" + (f"T{time}" if time or not date else "") + ("" if time or date else "0S")


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "format": "duration", "examples": ["PT1H"]}),
]
