"""What a phpIPAM that is deployed here changes of backups and restores; its database: tests/integration/phpipam."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from cariflex_backup import restore, settings, staging
from cariflex_backup.archive import PARTS, Archive
from cariflex_backup.errors import BackupError
from cariflex_backup.mariadb import MariaDb
from cariflex_backup.settings import PhpIpam, Settings

GIVEN: dict[str, Any] = {
    "environment": "test",
    "project_version": "v1",
    "root": "/root",
    "database_container": "flexmeasures-db",
    "database_role": "backup",
    "database_password_file": "/password",
    "databases": [],
    "redis_container": "flexmeasures-redis",
    "folders": {},
    "volumes": {},
    "containers": ["phpipam-www", "phpipam-cron", "phpipam-db", "flexmeasures-db", "grafana"],
    "recipients": [],
    "days": 1,
    "weeks": 1,
    "months": 1,
}
PHPIPAM = {"container": "phpipam-db", "database": "phpipam", "users": ["phpipam-www", "phpipam-cron"]}
HELD = {"parts": {}, "phpipam": {"bytes": 1, "tables": {}}}


def read(tmp_path: Path, **more: Any) -> Settings:
    """Settings as the role writes them."""
    (tmp_path / "settings.json").write_text(json.dumps({**GIVEN, **more}))
    return settings.read(tmp_path / "settings.json")


def order(*parts: str) -> restore.Order:
    return restore.Order(Archive("20260504_020000", Path("20260504_020000.tar.gz")), "", "test", parts)


def test_settings_without_one_stay_as_they_were(tmp_path: Path) -> None:
    assert read(tmp_path).phpipam is None
    assert read(tmp_path, phpipam=PHPIPAM).phpipam == PhpIpam("phpipam-db", "phpipam", ("phpipam-www", "phpipam-cron"))


def test_it_is_restored_where_it_is_in_the_archive_and_on_the_host(tmp_path: Path) -> None:
    without, with_ = read(tmp_path), read(tmp_path, phpipam=PHPIPAM)
    everything = order("redis", "phpipam")
    assert restore._parts_there(with_, everything, HELD) == ("redis", "phpipam")
    assert restore._parts_there(without, everything, HELD) == ("redis",)
    # archives of older versions, and of hosts without one
    assert restore._parts_there(with_, everything, {"parts": {}}) == ("redis",)
    with pytest.raises(BackupError, match="has no part phpipam for this host"):
        restore._parts_there(with_, order("phpipam"), {"parts": {}})
    # test data hold no address book
    anonymized = {"anonymized": True, "parts": {"postgres": {}}}
    assert restore._parts_there(with_, order("postgres", "phpipam"), anonymized) == ("postgres",)


@pytest.mark.parametrize(
    ("parts", "stopped"),
    [
        (("phpipam",), ["phpipam-www", "phpipam-cron"]),
        (("grafana",), []),
        # PostgreSQL stops everything, but the databases themselves
        (("postgres", "phpipam"), ["phpipam-www", "phpipam-cron", "grafana"]),
    ],
)
def test_its_users_are_stopped_and_its_database_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...], stopped: list[str]
) -> None:
    monkeypatch.setattr(restore, "inspected", lambda names: [{"Name": f"/{name}", "Mounts": []} for name in names])
    assert restore.users_of(read(tmp_path, phpipam=PHPIPAM), parts, []) == stopped


def test_it_is_one_more_part_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Postgres:
        def version(self) -> str:
            return "17.2"

        def globals(self) -> bytes:
            return b""

    def dumped(_: MariaDb, target: Path) -> dict[str, Any]:
        target.write_text("dump")
        return {"bytes": 4, "tables": {}}

    monkeypatch.setattr(staging, "run", lambda *_, **__: b"")
    monkeypatch.setattr(staging, "redis_dump", lambda *_: "7")
    monkeypatch.setattr(staging, "inspected", lambda _: [])
    monkeypatch.setattr(MariaDb, "version", lambda _: "10.11.4")
    monkeypatch.setattr(MariaDb, "dump", dumped)
    given = read(tmp_path, phpipam=PHPIPAM)
    for name, one, expected in (("with", given, (*PARTS, "phpipam")), ("without", None, PARTS)):
        folder = tmp_path / name
        folder.mkdir()
        made = one or dataclasses.replace(given, phpipam=None)
        found = staging.stage(made, Postgres(), folder)  # type: ignore[arg-type]
        assert set(found.parts) == set(expected) == {path.name for path in folder.iterdir()}
        assert bool(found.phpipam) == ("mariadb" in found.versions) == (name == "with")
    assert (tmp_path / "with/phpipam/phpipam.sql").read_text() == "dump"
