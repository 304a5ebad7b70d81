"""Filters for S2 devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any


def s2_tokens(resources: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, str]:
    """Token by device: a hash of the key, the device's name and, from 2 on, its token_version.

    Knowing one tells nothing about another. A new version gives one device another token; those of the others stay.
    """
    versions = {name: int(resource.get("token_version", 1)) for name, resource in resources.items()}
    seeds = {name: f"{key}:{name}" + (f":{version}" if version > 1 else "") for name, version in versions.items()}
    return {name: hashlib.sha256(seed.encode()).hexdigest() for name, seed in seeds.items()}


class FilterModule:
    """The filters of this file, in the form in which Ansible asks for them."""

    def filters(self) -> dict[str, Callable[[Mapping[str, Mapping[str, Any]], str], dict[str, str]]]:
        """Name -> filter."""
        return {"s2_tokens": s2_tokens}
