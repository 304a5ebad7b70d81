"""The price of what is fed in, hour by hour. Pure, apart from reading its file."""

import csv
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo


class TariffError(Exception):
    """A tariff cannot be used; the text says what is wrong, and in which line."""


@dataclass(frozen=True)
class Daily:
    """The same prices each day, by the site's clock."""

    prices: Mapping[time, float]
    zone: ZoneInfo

    def at(self, moment: int) -> float | None:
        """EUR/MWh at a time in seconds since 1970."""
        clock = datetime.fromtimestamp(moment, self.zone).time()
        return self.prices[max(since for since in self.prices if since <= clock)]


@dataclass(frozen=True)
class Listed:
    """Prices from certain times on, each until the next one; `times` in seconds since 1970, in order."""

    times: tuple[int, ...]
    prices: tuple[float, ...]

    def at(self, moment: int) -> float | None:
        """EUR/MWh at a time; None before the first."""
        index = bisect_right(self.times, moment) - 1
        return self.prices[index] if index >= 0 else None


def listed(path: Path) -> Listed:
    """Read a file with the columns `start` and `eur_per_mwh`.

    Raises:
        TariffError: with the line that is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TariffError(f"{path} cannot be read: {error}") from None
    found: list[tuple[int, float]] = []
    for number, row in enumerate(rows, 2):
        try:
            start, price = datetime.fromisoformat(row["start"]), float(row["eur_per_mwh"])
        except (KeyError, TypeError, ValueError):
            wanted = "start,eur_per_mwh such as 2027-01-01T00:00:00-04:00,95.5"
            raise TariffError(f"{path}, line {number}: write {wanted}") from None
        if start.tzinfo is None:
            raise TariffError(f"{path}, line {number}: {row['start']} has no offset; write it as {row['start']}-04:00")
        if not -10_000 <= price <= 10_000:
            raise TariffError(f"{path}, line {number}: {price:g} EUR/MWh is no price")
        found.append((int(start.astimezone(UTC).timestamp()), price))
    if not found:
        raise TariffError(f"{path} has no prices")
    for number, (one, other) in enumerate(pairwise(found), 3):
        if other[0] <= one[0]:
            raise TariffError(f"{path}, line {number}: its start is not after that of the line before")
    times, prices = zip(*found, strict=True)
    return Listed(times, prices)
