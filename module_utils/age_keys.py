# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys of age (X25519): made and checked on the controller, where age need not be installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_SECRET, _PUBLIC = "age-secret-key-", "age"


def new_identity() -> str:
    """A new secret key, as age-keygen makes one: on the controller, where age need not be installed."""
    raw = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return _encoded(_SECRET, raw).upper()


def recipients_of(identities: str) -> list[str]:
    """The public keys of secret keys, one a line; comments count for nothing.

    Raises:
        ValueError: a line is no secret key of age's; without its text.
    """
    lines = [line.strip() for line in identities.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    return [_recipient(key, number) for number, key in enumerate(keys, 1)]


def is_recipient(text: Any) -> bool:
    """Whether a text is a public key of age's, with its checksum."""
    try:
        return len(_decoded(_PUBLIC, str(text))) == 32
    except ValueError:
        return False


def _recipient(key: str, number: int) -> str:
    try:
        raw = _decoded(_SECRET, key.lower())
        public = X25519PrivateKey.from_private_bytes(raw).public_key()
    except ValueError:
        raise ValueError(f"secret key {number} is none of age's: it begins with AGE-SECRET-KEY-1") from None
    return _encoded(_PUBLIC, public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def _encoded(prefix: str, raw: bytes) -> str:
    """Bech32 (BIP 173) of bytes."""
    data = _regrouped(raw, 8, 5)
    check = _polymod([*_expanded(prefix), *data, 0, 0, 0, 0, 0, 0]) ^ 1
    sums = [(check >> 5 * (5 - place)) & 31 for place in range(6)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in [*data, *sums])}"


def _decoded(prefix: str, text: str) -> bytes:
    """The bytes of a Bech32 text; ValueError for any other."""
    head, _, rest = text.rpartition("1")
    values = [_ALPHABET.index(letter) for letter in rest]
    if head != prefix or _polymod([*_expanded(prefix), *values]) != 1:
        raise ValueError("no such key")
    return bytes(_regrouped(bytes(values[:-6]), 5, 8))


def _expanded(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATOR):
            check ^= generator if (top >> place) & 1 else 0
    return check


def _regrouped(values: bytes, width: int, wanted: int) -> list[int]:
    """Bits in groups of another width; the last one filled up with zeros when they get smaller."""
    bits = "".join(f"{value:0{width}b}" for value in values)
    bits = bits.ljust(-(-len(bits) // wanted) * wanted, "0") if wanted < width else bits[: len(bits) // wanted * wanted]
    return [int(bits[start : start + wanted], 2) for start in range(0, len(bits), wanted)]
