"""Restoring into real PostgreSQL and Redis: what comes back, what is refused, and what a kill in the middle costs."""

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cariflex_backup.archive import Archive, archive_at, pack, seal, unpacked
from cariflex_backup.database import Server as Reader
from tests.integration.backup.conftest import START, Program
from tests.integration.grafana.conftest import Server, docker

pytestmark = pytest.mark.docker

FORMAT_1 = Path(__file__).parent / "format-1/20260504_020000.tar.gz"
CONFIRM = ("--identity-on-stdin", "--confirm", "test")


def state(server: Server) -> dict[str, Any]:
    """Fingerprints of both databases, but of what runs write about themselves."""
    found = {name: Reader(server.container).fingerprint(name) for name in ("flexmeasures", "openadr")}
    for table in ("ems.backup_run", "ems.drill_run"):
        found["flexmeasures"]["tables"].pop(table)
    return found


def databases(server: Server) -> set[str]:
    """Names of all databases."""
    with server.connect("postgres", "postgres") as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate")}


def owner_and_rights(server: Server) -> list[tuple[str, ...]]:
    """Of the databases."""
    with server.connect("postgres", "postgres") as connection:
        return connection.execute(
            "SELECT datname, datdba::regrole::text, (SELECT string_agg(acl::text, ' ' ORDER BY acl::text)"
            " FROM unnest(datacl) acl) FROM pg_database WHERE NOT datistemplate ORDER BY 1"
        ).fetchall()


def spoil(server: Server) -> None:
    """What an operator wants to be rid of."""
    with server.connect("postgres") as connection:
        connection.execute("DELETE FROM timed_belief WHERE sensor_id < 20")
        connection.execute("UPDATE sensor SET name = name || ' spoiled' WHERE id = 84")


def no_leftovers(program: Program, server: Server) -> None:
    """Hold that only what belongs there is there."""
    assert not [name for name in databases(server) if "__" in name]
    assert not [path.name for path in program.root.iterdir() if path.name.startswith((".unpacked", ".staging"))]
    assert docker("ps", "--all", "--quiet", "--filter", "label=cariflex.restore") == ""


@dataclass
class Kept:
    """The archive that all tests here share: made once, and what they spoil comes back from it."""

    identity: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def kept() -> Kept:
    """Filled by the first test that needs it."""
    return Kept()


@pytest.fixture
def program(program: Program, kept: Kept) -> Program:
    """The program with the archive in its folder, and the key of it."""
    if not kept.files:
        done = program.run("run")
        assert done.status == 0, done.error
        kept.identity = program.identity
        kept.files.update({path.name: path.read_bytes() for path in program.root.glob("2*")})
    for name, content in kept.files.items():
        (program.root / name).write_bytes(content)
    return replace(program, identity=kept.identity)


@pytest.fixture
def made(program: Program) -> Archive:
    """The archive."""
    return archive_at(program.root / program.archives()[0])


@pytest.fixture
def before(made: Archive, server: Server) -> Iterator[dict[str, Any]]:
    """The state that the archive has; afterwards it has to be there again."""
    found = state(server)
    yield found
    assert state(server) == found


def restored(program: Program, *options: str, key: str | None = None, code: str = START) -> Any:
    """Restore, and take the answer."""
    return program.run("restore", *options, stdin=program.identity if key is None else key, code=code)


def test_what_was_lost_comes_back(program: Program, server: Server, redis: str, before: dict[str, Any]) -> None:
    rights = owner_and_rights(server)
    spoil(server)
    docker(
        "exec", redis, "sh", "-c", "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli del rq:queue:scheduling"
    )
    done = restored(program, *CONFIRM)
    assert done.status == 0, done.error
    assert done.told["rows"] > 10_000
    assert 0 < done.told["seconds_without_service"] <= done.told["seconds"] < 120
    assert state(server) == before
    assert owner_and_rights(server) == rights
    with server.connect("grafana_ro") as connection:
        assert connection.execute("SELECT count(sensor_id) > 0 FROM timed_belief").fetchone() == (True,)
    with server.connect("postgres") as connection:  # the row of that backup, which was under way when it was dumped
        query = "SELECT status, archive FROM ems.backup_run ORDER BY started_at DESC"
        assert connection.execute(query).fetchone() == ("ok", program.archives()[0])
    queue = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli llen rq:queue:scheduling"
    assert int(docker("exec", redis, "sh", "-c", queue)) > 0
    no_leftovers(program, server)


def test_folders_come_back(program: Program, tmp_path: Path) -> None:
    recipient = re.findall(r"public key: (\S+)", program.identity)
    program = program.with_(root=str(tmp_path / "other"), recipients=recipient)
    assert program.run("run").status == 0
    folder = tmp_path / "host/etc"
    (folder / "some.conf").write_text("spoiled")
    (folder / "new.conf").write_text("of later")
    code = f"import cariflex_backup.restore as r; r.FOLDERS = {{'network': ({str(folder)!r},)}}; {START}"
    done = restored(program, *CONFIRM, "--parts", "network", code=code)
    assert done.status == 0, done.error
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"some.conf": "of the host"}
    assert [path.name for path in folder.parent.iterdir()] == ["etc"]
    assert done.told["rows"] == 0


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        (("--identity-on-stdin",), None, "to go on, say so: --confirm test"),
        (("--identity-on-stdin", "--confirm", "prod"), None, "to go on, say so: --confirm test"),
        (("--confirm", "test"), "", "is encrypted: give age's identity"),
        (CONFIRM, "AGE-SECRET-KEY-1", "decrypting"),
        ((*CONFIRM, "--parts", "postgres,mail"), None, "There is no part mail to restore, only postgres, redis"),
        (("20200101_000000.tar.gz", *CONFIRM), None, "There is no archive"),
    ],
)
def test_it_is_refused_and_nothing_is_touched(
    options: tuple[str, ...], key: str | None, message: str, program: Program, before: dict[str, Any], server: Server
) -> None:
    done = restored(program, *options, key=key)
    assert (done.status, message in done.error) == (1, True), done.error
    no_leftovers(program, server)


@pytest.mark.parametrize(
    ("damage", "sum_beside"), [("a flipped bit", True), ("a flipped bit", False), ("cut off", False)]
)
def test_a_damaged_archive_is_refused(
    damage: str, sum_beside: bool, program: Program, made: Archive, before: dict[str, Any], server: Server
) -> None:
    data = bytearray(made.path.read_bytes())
    if damage == "cut off":
        data = data[: len(data) * 2 // 3]
    else:
        data[len(data) // 2] ^= 4
    made.path.write_bytes(data)
    if not sum_beside:  # as when it comes from elsewhere
        made.sum_path.unlink()
    done = restored(program, made.path.name, *CONFIRM)
    assert done.status == 1
    assert "differs from its checksum" in done.error if sum_beside else "failed" in done.error or "whole" in done.error
    no_leftovers(program, server)


def changed(program: Program, made: Archive, target: Path, **manifest: Any) -> Path:
    """An archive, not encrypted, whose manifest says something else."""
    target.mkdir()
    with unpacked(made, target, program.identity) as folder:
        said = json.loads((folder / "manifest.json").read_text())
        for name, value in manifest.items():
            said = value(said) if callable(value) else said | {name: value}
        seal(folder, said)
        return pack(folder, target, ()).path


def other_rows(said: dict[str, Any]) -> dict[str, Any]:
    said["databases"]["flexmeasures"]["tables"]["public.sensor"]["rows"] += 1
    return said


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"format": 2}, "has the format 2, and this program reads 1. Deploy the version"),
        ({"environment": "prod"}, "is of prod, and this host is of test"),
        ({"versions": {"postgres": "18.1"}}, "is of PostgreSQL 18.1, and"),
        ({"databases": other_rows}, "differs from the manifest in 1 places: flexmeasures: public.sensor has"),
    ],
)
def test_an_archive_that_does_not_fit_is_refused(
    manifest: dict[str, Any],
    message: str,
    program: Program,
    made: Archive,
    before: dict[str, Any],
    server: Server,
    tmp_path: Path,
) -> None:
    path = changed(program, made, tmp_path / "changed", **manifest)
    done = restored(program, str(path), "--confirm", "test", key="")
    assert (done.status, message in done.error) == (1, True), done.error
    no_leftovers(program, server)


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        ("r._RESERVE_BYTES = 1 << 60", "MB free, and unpacking the archive takes"),
        ("r.loading.disk_needed = lambda databases: 1 << 60", "MB free, and the restored databases, beside those"),
    ],
)
def test_too_little_room_is_told_before_anything_is_touched(
    needed: str, message: str, program: Program, before: dict[str, Any], server: Server
) -> None:
    done = restored(program, *CONFIRM, code=f"import cariflex_backup.restore as r; {needed}; {START}")
    assert (done.status, message in done.error) == (1, True), done.error
    assert state(server) == before
    no_leftovers(program, server)


@pytest.mark.parametrize("moment", ["while a database is filled", "between the swap and the rest"])
def test_a_killed_restore_has_lost_nothing_and_can_be_run_again(
    moment: str, program: Program, before: dict[str, Any], server: Server
) -> None:
    spoil(server)
    spoiled = state(server)
    code = START
    if moment == "between the swap and the rest":
        code = (
            "import os, cariflex_backup.loading as l; swap = l.swap\n"
            f"l.swap = lambda *given: (swap(*given), os.kill(os.getpid(), 9))\n{START}"
        )
    process = program.start("restore", *CONFIRM, code=code)
    assert process.stdin
    process.stdin.write(program.identity)
    process.stdin.close()
    process.stdin = None
    if moment == "while a database is filled":
        deadline = time.monotonic() + 60
        while "flexmeasures__restored" not in databases(server):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    process.communicate()
    assert process.returncode == -9
    assert state(server) == (spoiled if moment == "while a database is filled" else before)
    done = restored(program, *CONFIRM)
    assert done.status == 0, done.error
    assert state(server) == before
    no_leftovers(program, server)


def drills(server: Server) -> list[tuple[Any, ...]]:
    """The rows of drills, the newest first, without that of the fixture."""
    with server.connect("postgres") as connection:
        return connection.execute(
            "SELECT status, differences, seconds > 0, error FROM ems.drill_run WHERE archive <> 'a.tar'"
            " ORDER BY started_at DESC"
        ).fetchall()


def test_a_drill_makes_a_backup_tries_it_and_says_so(program: Program, before: dict[str, Any], server: Server) -> None:
    done = program.run("drill")
    assert done.status == 0, done.error
    assert done.told["rows"] > 10_000
    assert done.told["differences"] == 0
    assert drills(server)[0] == ("ok", 0, True, None)
    assert 2 <= len(program.archives()) <= 4  # of a day the last is kept, with its checksum
    no_leftovers(program, server)


def test_a_drill_with_an_archive_takes_its_key(program: Program, before: dict[str, Any], server: Server) -> None:
    done = program.run("drill", program.archives()[0], "--identity-on-stdin", stdin=program.identity)
    assert done.status == 0, done.error
    assert drills(server)[0] == ("ok", 0, True, None)
    no_leftovers(program, server)


def test_a_drill_that_finds_something_fails_and_counts_it(
    program: Program, made: Archive, server: Server, tmp_path: Path
) -> None:
    path = changed(program, made, tmp_path / "changed", databases=other_rows)
    done = program.run("drill", str(path))
    assert done.status == 1
    assert "found 1 differences from its manifest: flexmeasures: public.sensor has" in done.error
    status, count, timed, error = drills(server)[0]
    assert (status, count, timed) == ("failed", 1, True)
    assert error in done.error
    no_leftovers(program, server)


def test_a_drill_with_a_dump_of_redis_that_is_none_fails(
    program: Program, made: Archive, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "changed").mkdir()
    with unpacked(made, tmp_path / "changed", program.identity) as folder:
        (folder / "redis/dump.rdb").write_bytes(b"REDIS0011" + secrets.token_bytes(100))
        seal(folder, json.loads((folder / "manifest.json").read_text()))
        path = pack(folder, tmp_path / "changed", ()).path
    done = program.run("drill", str(path))
    assert (done.status, "Redis could not read its dump" in done.error) == (1, True), done.error
    no_leftovers(program, server)


def test_an_archive_of_format_1_can_be_restored(program: Program, server: Server) -> None:
    shutil.copy(FORMAT_1, program.root)
    done = program.run("drill", FORMAT_1.name)
    assert done.status == 0, done.error
    assert (done.told["tables"], done.told["rows"]) == (3, 7)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(["docker", "inspect", "cariflex-drill"], check=True, capture_output=True)
