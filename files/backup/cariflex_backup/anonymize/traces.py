"""What looks like a person, in texts where nobody should be: found by its form, or because it was there before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

_WORD = r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]+"
FORMS = {
    "an e-mail address": re.compile(r"[\w.+-]+@(?!anonymous\.invalid\b)[\w-]+(?:\.[\w-]+)+"),
    "a name": re.compile(rf"\b{_WORD}(?:-{_WORD})?,? (?:{_WORD}|[A-ZÀ-ÖØ-Þ]{{2,}})\b|\b[A-ZÀ-ÖØ-Þ]{{2,}},? {_WORD}\b"),
    "an IP address": re.compile(
        r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,7}[0-9A-Fa-f]{1,4}"
        r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:)+:[0-9A-Fa-f]{0,4}"
    ),
    "a fingerprint": re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5,}[0-9A-Fa-f]{2}|SHA256:\S{20,}"),
    "a token": re.compile(
        r"\$(?:2[aby]|argon2\w*|pbkdf2[\w-]*|scrypt|bcrypt[\w-]*|[156y])\$\S+|eyJ[\w-]{10,}|-----BEGIN|AGE-SECRET-KEY|otpauth:"
        r"|(?<![0-9A-Za-z])[0-9a-fA-F]{32,}|\b[A-Z2-7]{16,}\b|(?i:\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b)"
        r"|(?<![\w+/-])(?=[\w+/-]*[a-z])(?=[\w+/-]*[A-Z])(?=[\w+/-]*\d)[\w+/-]{20,}|\b(?:gh[pousr]_|sk-|xox[bp]-|glpat-)\w+"
    ),
    "a telephone number": re.compile(r"\+\d(?:[ .-]?\d){7,}|(?<![\w.])0[1-9](?:[ .-]?\d{2}){4}(?![\w.])"),
    "a web address": re.compile(r"\b\w+://\S+"),
    "a precise coordinate": re.compile(r"(?<![\d.])[1-9]\d{0,2}\.\d{3,}|\d{1,3} ?° ?\d{1,2} ?['′]"),
}
# shorter ones stand in other words by chance
_SHORTEST, _SHORTEST_NUMBER = 4, 6


def forms(text: str) -> list[str]:
    """What a text looks like."""
    return [what for what, pattern in FORMS.items() if pattern.search(text)]


def found(texts: Iterable[str], known: Collection[str]) -> Counter[str]:
    """What looks like a person in texts -> in how many of them.

    Args:
        known: what was there before, or was planted: small letters, as `sought` gives it.
    """
    told: Counter[str] = Counter()
    there = list(texts)
    for text in there:
        told.update(forms(text))
    everything = "\n".join(there).casefold()
    if seen := [one for one in known if one in everything]:
        told["what was there before, or a canary"] = sum(any(one in text.casefold() for one in seen) for text in there)
    return told


def sought(texts: Iterable[str], words: str) -> set[str]:
    """Of texts that were there before, those that can be looked for.

    Args:
        words: all that may stand anywhere: a text that is part of it tells nothing.
    """
    ordinary = words.casefold()
    folded = {text.strip().casefold() for text in texts}
    return {
        text
        for text in folded
        if len(text) >= (_SHORTEST_NUMBER if text.isdigit() else _SHORTEST) and text not in ordinary
    }
