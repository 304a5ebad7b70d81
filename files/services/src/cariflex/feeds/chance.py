"""Chance that can be had again: it follows from a seed and a name alone. Pure."""

import hashlib
import math


class Chance:
    """One run of a game; another seed is another run."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def at(self, name: str) -> float:
        """A number of 0 up to 1, always the same for a name."""
        digest = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def smooth(self, name: str, place: float) -> float:
        """A number of 0 up to 1 that changes gently with `place`, and is new at each whole number."""
        whole = math.floor(place)
        gone = place - whole
        weight = gone * gone * (3 - 2 * gone)
        return (1 - weight) * self.at(f"{name} {whole}") + weight * self.at(f"{name} {whole + 1}")
