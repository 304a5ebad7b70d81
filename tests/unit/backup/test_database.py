"""How PostgreSQL's programs are told a password."""

import subprocess
from pathlib import Path

import pytest

from cariflex_backup.database import LOGGED_IN, password_line


@pytest.mark.parametrize(
    ("password", "line"),
    [
        ("Abc123", "*:*:*:*:Abc123"),
        ("a:b", r"*:*:*:*:a\:b"),
        ("a\\b", r"*:*:*:*:a\\b"),
        (" '$(x)\" ", "*:*:*:*: '$(x)\" "),
    ],
)
def test_a_password_reaches_them_by_a_file_without_a_name(password: str, line: str) -> None:
    """As often as they read it, while the rest of standard input is theirs; the environment names the file only."""
    program = 'readlink "$PGPASSFILE"; cat "$PGPASSFILE" "$PGPASSFILE"; cat; env'
    done = subprocess.run(
        ["sh", "-c", f"{LOGGED_IN} && exec sh -c '{program}'"],
        input=f"{password_line(password)}SELECT 1;\n",
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    link, *read, rest = done.stdout.split("\n", 4)
    assert link.startswith("/dev/shm/tmp.")
    assert link.endswith(" (deleted)")
    assert not Path(link.removesuffix(" (deleted)")).exists()
    assert read == [line, line, "SELECT 1;"]
    assert "PGPASSFILE=/dev/fd/3" in rest
    assert line not in rest
