"""Encryption to public keys by age: whoever holds only those cannot read what they wrote."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cariflex_backup.commands import failed
from cariflex_backup.errors import BackupError


@contextmanager
def encrypted(recipients: Sequence[str], target: IO[bytes]) -> Iterator[IO[bytes]]:
    """A file to write into; what is written reaches `target` encrypted.

    Raises:
        BackupError: age is missing or refuses a recipient.
    """
    arguments = ["age", "--encrypt"] + [word for recipient in recipients for word in ("--recipient", recipient)]
    process = _start(arguments, stdin=subprocess.PIPE, stdout=target)
    if process.stdin is None:
        raise BackupError("age took no input.")
    try:
        yield process.stdin
        process.stdin.close()
    except BrokenPipeError:
        raise _ended(process, arguments) from None
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.wait():
        raise _ended(process, arguments)


@contextmanager
def decrypted(archive: Path, identity: str) -> Iterator[IO[bytes]]:
    """A file to read from; the identity, age's secret key, goes through a pipe and touches no disk.

    Raises:
        BackupError: the key does not fit, or the archive is damaged.
    """
    read_end, write_end = os.pipe()
    arguments = ["age", "--decrypt", "--identity", f"/dev/fd/{read_end}", str(archive)]
    process = _start(arguments, stdout=subprocess.PIPE, pass_fds=(read_end,))
    os.close(read_end)
    # a thread, for age may end before it has read the key
    threading.Thread(target=_write, args=(write_end, identity.strip() + "\n"), daemon=True).start()
    if process.stdout is None:
        raise BackupError("age gave no output.")
    ended = False
    try:
        yield process.stdout
        process.stdout.read()  # what follows the end of the tar archive: age checks all of it
        ended = True
    finally:
        if not ended and process.poll() is None:
            # a reader that broke off because the text ended too soon waits for age's reason
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                process.kill()
        process.stdout.close()
        code = process.wait()
        if code > 0:
            raise _ended(process, arguments)
        if process.stderr:
            process.stderr.close()


def _start(
    arguments: Sequence[str],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes],
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - a command of this package
            list(arguments), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, pass_fds=pass_fds
        )
    except OSError as error:
        raise BackupError(f"age cannot be run ({error.strerror}). Install it: apt install age.") from None


def _write(descriptor: int, text: str) -> None:
    try:
        with os.fdopen(descriptor, "w") as pipe:
            pipe.write(text)
    except BrokenPipeError:
        pass  # age says why


def _ended(process: subprocess.Popen[bytes], arguments: Sequence[str]) -> BackupError:
    code = process.wait()
    stderr = process.stderr.read() if process.stderr else b""
    what = "encrypting" if "--encrypt" in arguments else f"decrypting {arguments[-1]}"
    return failed(arguments, code, stderr, what)
