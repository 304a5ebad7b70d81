"""Commands of the host. Secrets reach them through standard input, never as arguments, which everybody can list."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import IO

from cariflex_backup.errors import BackupError


def run(arguments: Sequence[str], stdin: str | bytes = "", *, stdout: IO[bytes] | None = None, what: str = "") -> bytes:
    """What a command prints, or nothing where `stdout` is a file that takes it.

    Args:
        what: what it does, for the error's text; else its first words.

    Raises:
        BackupError: it failed or is not there; with what it said.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(  # noqa: S603 - commands of this package
            list(arguments), input=data, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, check=False
        )
    except OSError as error:
        raise BackupError(f"{what or arguments[0]}: {arguments[0]} cannot be run ({error.strerror}).") from None
    if done.returncode:
        raise failed(arguments, done.returncode, done.stderr, what)
    return done.stdout or b""


def failed(arguments: Sequence[str], code: int, stderr: bytes, what: str = "") -> BackupError:
    """The error of a command that ended so."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    said = " / ".join(lines[-3:]) or f"it ended with {code} and said nothing"
    return BackupError(f"{what or ' '.join(arguments[:3])} failed: {said}")
