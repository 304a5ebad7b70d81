# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What has to be written or removed so that a stack's folder holds what is declared. Pure: no file is touched here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class File:
    """A file of a stack: content, octal mode, numeric owner and group; a secret's content is never shown."""

    content: str
    mode: int
    owner: int
    group: int
    secret: bool = False


@dataclass(frozen=True)
class Change:
    """One file to write (`after` set) or remove (`after` None); `before` is None for a new one."""

    path: str
    before: File | None
    after: File | None


def check_path(path: str) -> str:
    """The path itself, if it stays inside the stack's folder.

    Raises:
        ValueError: it is absolute, empty or climbs out.
    """
    parts = path.split("/")
    if path.startswith("/") or not path or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"files: {path!r} has to be a path inside the stack's folder, as conf/app.yml")
    return path


def plan(current: Mapping[str, File], desired: Mapping[str, File], ours: set[str]) -> list[Change]:
    """The changes that make `current` equal to `desired`, in order of their paths.

    Args:
        current: the declared files that exist, and those of `ours`.
        desired: the declared files.
        ours: paths that an earlier run wrote; only these are removed when they are no longer declared.
    """
    writes = [Change(p, current.get(p), after) for p, after in desired.items() if current.get(p) != after]
    removals = [Change(p, current[p], None) for p in ours - desired.keys() if p in current]
    return sorted(writes + removals, key=lambda change: change.path)


def diff(root: str, changes: list[Change]) -> list[dict[str, Any]]:
    """Ansible's diff of the changes; of a secret only that it changes."""

    def text(file: File | None) -> str:
        if file is None:
            return ""
        return "(secret)\n" if file.secret else file.content

    def heading(path: str, file: File | None) -> str:
        return f"{root}/{path}" + (f" ({file.mode:04o} {file.owner}:{file.group})" if file else " (absent)")

    shown = []
    for change in changes:
        both_secret = change.before and change.after and (change.before.secret or change.after.secret)
        shown.append(
            {
                "before_header": heading(change.path, change.before),
                "after_header": heading(change.path, change.after),
                "before": "(another secret)\n" if both_secret else text(change.before),
                "after": text(change.after),
            }
        )
    return shown
