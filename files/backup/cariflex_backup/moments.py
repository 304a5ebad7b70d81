"""To which moments a database can be restored, and with what. Pure: it is told what there is, and says what can be.

A base is a copy of the server's files, in full or of what has changed since its parent. From the end of a base on,
every moment can be restored for which the write-ahead log (WAL) is there without a gap. A mark says that all that was
committed until its time stands before its place in the log; only marks that have reached the archive are noted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cariflex_backup.errors import BackupError

SEGMENT_BYTES = 16 << 20
SEGMENT = re.compile(r"[0-9A-F]{24}")
_PER_LOG = (1 << 32) // SEGMENT_BYTES


@dataclass(frozen=True, order=True)
class Mark:
    """All that was committed until `time` stands before `lsn`."""

    time: datetime
    system: str
    timeline: int
    lsn: int


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        stamp: its name, when it was begun.
        system: identifier of the database cluster.
        timeline: of its log; another one begins with every restore to a moment.
        start: first place in the log that it needs.
        end: where its files are of one state.
        ready: the first moment that can be restored with it.
        parent: the stamp of the base that it says the differences from; empty for a full one.
        environment: such as prod.
        version: of PostgreSQL.
        size: bytes of the files when they are unpacked, all of them.
    """

    stamp: str
    system: str
    timeline: int
    start: int
    end: int
    ready: datetime
    parent: str
    environment: str
    version: str
    size: int


@dataclass(frozen=True)
class Range:
    """Moments that can be restored with one base, and the segment whose absence ends them, if it is that."""

    base: Base
    begin: datetime
    end: datetime
    missing: str = ""


def moment_of(text: str, now: datetime) -> datetime:
    """A moment as an operator types it.

    Raises:
        BackupError: it is none, has no zone, or lies ahead.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BackupError(f"{text!r} is no moment. Type it as 2026-11-27T05:00:00-04:00.") from None
    if moment.tzinfo is None:
        raise BackupError(
            f"{text} does not say in which zone. Type {moment.isoformat()}-04:00 if it is Martinique's time, or "
            f"{moment.isoformat()}+00:00 if it is UTC."
        )
    if moment > now:
        raise BackupError(f"{text} lies ahead: it is {now.isoformat(timespec='seconds')} now.")
    return moment.astimezone(UTC)


def lsn_of(text: str) -> int:
    """A place in the log, as PostgreSQL writes it: 0/1A2B3C4D."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_of(timeline: int, lsn: int) -> str:
    """The name of the segment with the byte at a place."""
    number = lsn // SEGMENT_BYTES
    return f"{timeline:08X}{number // _PER_LOG:08X}{number % _PER_LOG:08X}"


def segments_between(timeline: int, start: int, end: int) -> list[str]:
    """The segments with the log from a place up to another one."""
    first, last = start // SEGMENT_BYTES, max(start, end - 1) // SEGMENT_BYTES
    return [segment_of(timeline, number * SEGMENT_BYTES) for number in range(first, last + 1)]


def chain(base: Base, bases: Iterable[Base]) -> list[Base]:
    """The full base that a base stands on, those between them, and itself; empty when one is missing."""
    by_stamp = {one.stamp: one for one in bases if one.system == base.system}
    found = [base]
    while found[0].parent:
        if found[0].parent not in by_stamp or len(found) > len(by_stamp):
            return []
        found.insert(0, by_stamp[found[0].parent])
    return found


def ranges(bases: Collection[Base], marks: Iterable[Mark], segments: Collection[tuple[str, str]]) -> list[Range]:
    """What can be restored, the oldest base first.

    Args:
        segments: system and name of those that the archive has, the one that is being received included.
    """
    noted = sorted(marks)
    found = []
    for base in sorted(bases, key=lambda one: one.ready):
        if not chain(base, bases):
            continue
        of_line = [mark for mark in noted if (mark.system, mark.timeline) == (base.system, base.timeline)]
        later = [mark for mark in of_line if mark.lsn >= base.end and mark.time >= base.ready]
        if not later:
            continue
        wanted = segments_between(base.timeline, base.start, max(mark.lsn for mark in later))
        missing = next((name for name in wanted if (base.system, name) not in segments), "")
        if missing:
            there = wanted.index(missing) + base.start // SEGMENT_BYTES
            later = [mark for mark in later if mark.lsn <= there * SEGMENT_BYTES]
        if later:
            found.append(Range(base, base.ready, later[-1].time, missing))
    return found


def chosen(moment: datetime, there: Sequence[Range]) -> Range:
    """With which base a moment is restored: with the least log to go through.

    Raises:
        BackupError: with none; the text says what can be restored, and what is missing.
    """
    fitting = [one for one in there if one.begin <= moment <= one.end]
    if fitting:
        return max(fitting, key=lambda one: one.begin)
    if not there:
        raise BackupError(
            "No moment can be restored: there is no base with the log that belongs to it. Is backup_moments on? An "
            "archive can be restored: cariflex-backup list"
        )
    gaps = sorted({one.missing for one in there if one.missing and one.end < moment})
    gap = f" The archive has a gap: {', '.join(gaps)} of the log is missing." if gaps else ""
    said = "; ".join(f"{begin.isoformat()} to {end.isoformat()}" for begin, end in merged(there))
    raise BackupError(f"{moment.isoformat()} cannot be restored.{gap} What can be: {said}.")


def merged(there: Iterable[Range]) -> list[tuple[datetime, datetime]]:
    """Stretches of time in which every moment can be restored."""
    found: list[tuple[datetime, datetime]] = []
    for one in sorted(there, key=lambda one: one.begin):
        if found and one.begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], one.end))
        else:
            found.append((one.begin, one.end))
    return found


def log_needed(base: Base, moment: datetime, marks: Iterable[Mark]) -> list[str]:
    """The segments that lead from a base to a moment, up to a commit that came after it."""
    after = [
        mark
        for mark in sorted(marks)
        if (mark.system, mark.timeline) == (base.system, base.timeline) and mark.time >= moment and mark.lsn >= base.end
    ]
    return segments_between(base.timeline, base.start, after[0].lsn)


def bases_kept(bases: Collection[Base], days: int, now: datetime) -> set[Base]:
    """The bases that every moment of the last days takes, and those that they stand on."""
    cutoff = now - timedelta(days=days)
    by_age = sorted(bases, key=lambda one: one.ready)
    older = [one for one in by_age if one.ready <= cutoff and chain(one, bases)]
    wanted = [one for one in by_age if one.ready > cutoff] + older[-1:]
    return {one for base in wanted for one in (chain(base, bases) or [base])}


def segments_kept(segments: Iterable[tuple[str, str]], kept: Collection[Base]) -> set[tuple[str, str]]:
    """The segments that some base may need: of each line those from its oldest base on, and of newer lines all."""
    oldest: dict[tuple[str, int], str] = {}
    for base in kept:
        line = (base.system, base.timeline)
        first = segment_of(base.timeline, base.start)
        oldest[line] = min(first, oldest.get(line, first))
    newest = {system: max(timeline for of, timeline in oldest if of == system) for system, _ in oldest}
    found = set()
    for system, name in segments:
        timeline = int(name[:8], 16)
        first = oldest.get((system, timeline), "")
        if (first and name >= first) or (system in newest and timeline > newest[system]):
            found.add((system, name))
    return found
