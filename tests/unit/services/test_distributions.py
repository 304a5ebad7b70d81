"""A message that is rendered once for many VENs is, for each of them, what openleadr would have rendered."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openleadr.messaging import create_message, validate_xml_schema

from cariflex.openadr.signals import SIGNALS
from cariflex.vtn.distributions import KEPT, Distributions
from cariflex.vtn.events import Event, Interval, distribution
from tests.unit.services.openadr_support import OTHER_VEN, VEN, next_hour, price_body, running_vtn
from tests.unit.services.test_vtn_polls import BODY, register

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
REQUEST = "5f1d7d2a-0000-4000-8000-000000000000"
VENS = frozenset({VEN, OTHER_VEN})


def long_way(events: list[Event], ven_id: str, now: datetime) -> str:
    """As openleadr answers a poll: with no id of the request that it answers, and one of its own."""
    payload = distribution("CARIFLEX_VTN", events, ven_id, now)
    payload |= {"response": payload["response"] | {"request_id": None}, "request_id": REQUEST}
    return str(create_message("oadrDistributeEvent", **payload))


@st.composite
def events(draw: st.DrawFn) -> Event:
    name = draw(st.sampled_from(sorted(SIGNALS)))
    signal = SIGNALS[name]
    values = st.integers(int(max(signal.minimum, -1000)), int(min(signal.maximum, 1000))).map(float)
    minutes = st.integers(1, 600).map(lambda n: timedelta(minutes=n))
    moment = NOW - timedelta(minutes=draw(st.integers(0, 100)))
    return Event(
        draw(st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,9}", fullmatch=True)),
        draw(st.integers(0, 3)),
        name,
        NOW + timedelta(minutes=draw(st.integers(-300, 300))),
        tuple(Interval(draw(minutes), draw(values)) for _ in range(draw(st.integers(1, 5)))),
        VENS,
        moment,
        moment,
        withdrawn=draw(st.sampled_from([frozenset[str](), frozenset({VEN})])),
        priority=draw(st.integers(0, 9)),
        test_event=draw(st.booleans()),
        cancelled=draw(st.booleans()),
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(events(), min_size=1, max_size=3, unique_by=lambda event: event.event_id), st.integers(0, 900))
def test_each_ven_gets_what_openleadr_renders_for_it(some: list[Event], minutes: int) -> None:
    distributions = Distributions("CARIFLEX_VTN")
    for now in (NOW, NOW + timedelta(minutes=minutes)):
        for ven_id in (VEN, OTHER_VEN, VEN):
            text = distributions.message(some, ven_id, now, REQUEST)
            assert text == long_way(some, ven_id, now)
            validate_xml_schema(text)


def test_another_version_is_rendered_anew() -> None:
    event = Event("a", 0, "ENERGY_PRICE", NOW, (Interval(timedelta(hours=1), 100.0),), VENS, NOW, NOW)
    later = NOW + timedelta(seconds=1)
    again = replace(event, intervals=(Interval(timedelta(hours=1), 200.0),), created_at=later, modified_at=later)
    modified = replace(again, modification_number=1, intervals=(Interval(timedelta(hours=1), 300.0),))
    distributions = Distributions("CARIFLEX_VTN")
    for version in (event, again, modified, event):
        assert distributions.message([version], VEN, later, REQUEST) == long_way([version], VEN, later)


def test_no_more_is_kept_than_it_says() -> None:
    distributions = Distributions("CARIFLEX_VTN")
    hour = (Interval(timedelta(hours=1), 100.0),)
    for number in range(KEPT + 10):
        event = Event(f"e{number}", 0, "ENERGY_PRICE", NOW, hour, VENS, NOW, NOW)
        distributions.message([event], VEN, NOW, REQUEST)
    assert len(distributions._rendered) == KEPT


async def test_a_known_poll_brings_the_same_events_as_the_long_way() -> None:
    def without_id(answer: Any) -> str:
        status, text = answer
        assert status == 200
        start, end = text.index("<requestID", text.index("</ei:eiResponse>")), text.index("<ei:vtnID>")
        return str(text[:start] + text[end:])

    async with running_vtn() as vtn:
        await register(vtn)
        await vtn.send("OadrPoll", BODY)
        await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour()))
        known = without_id(await vtn.send("OadrPoll", BODY))
        assert "price-1" in known
        assert known == without_id(await vtn.send("OadrPoll", BODY.replace("\n", "\n ")))
