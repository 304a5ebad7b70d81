"""What is wrong with an input, in the one form in which every check of ours says it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

# Longer values are cut: a message is read in a terminal.
VALUE_LENGTH = 80


class Problem(NamedTuple):
    """One thing to correct.

    Attributes:
        variable: dotted path of the variable, such as ``topology.sensors.pv_01_power.id``.
        value: the refused value as text, or None where it must not be shown (secrets) or does not exist.
        problem: what is wrong with it.
        fix: what to type instead.
        where: file and line of the value, where known.
    """

    variable: str
    value: str | None
    problem: str
    fix: str
    where: str | None = None

    def __str__(self) -> str:
        name = self.variable if self.value is None else f"{self.variable} = {self.value}"
        end = "" if self.fix.endswith("?") else "."
        where = f" ({self.where})" if self.where else ""
        return f"{name}: {self.problem}. Fix: {self.fix}{end}{where}"


def shown(value: object) -> str:
    """A value as one short line, written as JSON would."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 1]}…"


def is_token(text: str) -> bool:
    """Whether a header of HTTP can hold it."""
    return re.fullmatch(r"[!-~]*", text) is not None


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely means, or None. Case and leading zeros (ev_1, EV_01) count for nothing."""
    simplified = {_simplified(candidate): candidate for candidate in sorted(known)}
    found = difflib.get_close_matches(_simplified(name), simplified, n=1)
    return simplified[found[0]] if found else None


def _simplified(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name.lower())


def one_of(name: str, known: Iterable[str]) -> str:
    """The fix for a name that is not declared: the nearest known one, or all when they are few."""
    candidates = sorted(known)
    near = closest(name, candidates)
    if near is not None:
        return f"did you mean {near}?"
    if not candidates:
        return "declare it first"
    if len(candidates) > 8:
        return f"use one of the {len(candidates)} declared names, such as {candidates[0]} or {candidates[-1]}"
    return "use one of " + ", ".join(candidates)


def headline(problems: list[Problem], subject: str) -> str:
    """One line that says how many there are."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{subject}: {count}, nothing has been changed"


def listing(problems: list[Problem]) -> str:
    """Every problem on a line of its own. Ends with a newline, which makes Ansible print it as a block, unwrapped."""
    return "".join(f"- {problem}\n" for problem in problems)
