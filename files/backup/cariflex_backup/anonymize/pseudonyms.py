"""Pseudonyms, factors and shifts, all drawn from one key: the same for the same thing, and nothing without the key.

The key lives in this process alone. When the run ends it is gone, and nobody can ask any more whether a pseudonym is
somebody's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

WEEK_SECONDS = 7 * 86400
# values move at least in a ring of so many weeks, also where there are fewer
RING_WEEKS = 8
# below 1 with the noise, so that what a device measures stays within its limits
LOWEST_FACTOR, HIGHEST_FACTOR, NOISE = 0.6, 0.9, 0.05
_LETTERS = 12


@dataclass(frozen=True)
class Key:
    """The key of one run.

    Attributes:
        secret: 32 bytes.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def pseudonym(self, kind: str, text: str) -> str:
        """A name of a kind for a text."""
        if kind == "session":
            return self._drawn(kind, text).hex()[:32]
        letters = base64.b32encode(self._drawn(kind, text)).decode().lower()[:_LETTERS]
        return f"user-{letters}@anonymous.invalid" if kind == "email" else f"{kind}-{letters}"

    def digest(self, data: bytes) -> bytes:
        """Other bytes, as many."""
        blocks = (self._drawn(f"digest {number}", data.hex()) for number in range(len(data) // 32 + 1))
        return b"".join(blocks)[: len(data)]

    def factor(self, asset: int) -> float:
        """What an asset's power and energy are multiplied with."""
        return LOWEST_FACTOR + (HIGHEST_FACTOR - LOWEST_FACTOR) * self._number("factor", asset) / (1 << 63)

    def weeks(self, asset: int, ring: int) -> int:
        """By how many weeks an asset's values move back in a ring of weeks: 1 to ring - 1."""
        return 1 + self._number("weeks", asset) % (ring - 1)

    def seed(self, sensor: int) -> int:
        """Where a sensor's noise begins."""
        return self._number("noise", sensor)

    def _number(self, what: str, of: int) -> int:
        """63 bits."""
        return int.from_bytes(self._drawn(what, str(of))[:8]) >> 1

    def _drawn(self, what: str, of: str) -> bytes:
        # a length first, so that no two pairs are written alike
        message = f"{len(what)} {what} {of}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.secret, message, hashlib.sha256)


def ring_of(oldest: int, newest: int) -> int:
    """How many weeks the ring has in which values of an age of `newest` to `oldest` weeks move."""
    return max(oldest - newest + 1, RING_WEEKS)


def moved(age: int, weeks: int, ring: int) -> int:
    """The age, in whole weeks, that a value of an age has afterwards; never of the future, and each another's."""
    return (age + weeks) % ring
