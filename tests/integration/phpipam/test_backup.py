"""The backup of phpIPAM's database against a real MariaDB 10.11: what is dumped comes back, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cariflex_backup.errors import BackupError
from cariflex_backup.mariadb import MariaDb
from cariflex_backup.throwaway import mariadb
from tests.support.playbook import ROOT

pytestmark = pytest.mark.docker

IMAGE = "cariflex-mariadbtest:current"
ROWS = """
INSERT INTO customers VALUES (7, 'of the office');
INSERT INTO subnets VALUES (1, '2887581696', 1, 7);
INSERT INTO ipaddresses (subnetId, ip_addr, hostname) VALUES (1, '2887581706', 'imprimante à l''étage');
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    """A MariaDB with phpIPAM's tables and rows in some."""
    schema = (ROOT / "files/images/phpipamtest/SCHEMA.sql").read_text(encoding="utf-8")
    with mariadb(IMAGE, "phpipam", "test") as made:
        made.ask(f"CREATE DATABASE phpipam; USE phpipam;\n{schema}\n{ROWS}")
        yield made


def asked(server: MariaDb, query: str) -> str:
    return server.ask(f"USE phpipam; {query};")


def test_what_is_dumped_in_one_state_comes_back(server: MariaDb, tmp_path: Path) -> None:
    dump = tmp_path / "phpipam.sql"
    made = server.dump(dump)
    found = made["tables"]
    assert (found["ipaddresses"]["rows"], made["bytes"]) == (1, dump.stat().st_size)
    assert server.fingerprint("phpipam") == found
    asked(server, "DELETE FROM ipaddresses; UPDATE customers SET title = 'spoiled'; CREATE TABLE of_later (id int)")
    assert server.fingerprint("phpipam") != found

    # beside what is there, which stays until it is swapped
    assert server.load(dump, made) == []
    assert asked(server, "SELECT title FROM customers") == "spoiled"
    server.swap()
    server.forget()
    assert server.fingerprint("phpipam") == found
    assert asked(server, "SELECT hostname FROM ipaddresses") == "imprimante à l'étage"
    assert "phpipam__" not in server.ask("SHOW DATABASES;")
    # foreign keys lead to where the tables are now
    assert "phpipam__" not in asked(server, "SHOW CREATE TABLE subnets")
    asked(server, "DELETE FROM customers")
    assert asked(server, "SELECT customer_id FROM subnets") == "NULL"

    # a database that is lost altogether
    server.ask("DROP DATABASE phpipam;")
    assert server.load(dump, made) == []
    server.swap()
    server.forget()
    assert server.fingerprint("phpipam") == found


def test_a_dump_that_differs_from_the_manifest_is_told(server: MariaDb, tmp_path: Path) -> None:
    dump = tmp_path / "phpipam.sql"
    found = server.dump(dump)["tables"]
    less = {name: table for name, table in found.items() if name != "customers"}
    other = {**found, "users": {**found["users"], "hash": "1"}}
    assert server.load(dump, {"tables": less}) == ["customers was not there"]
    assert server.load(dump, {"tables": other}) == ["users has as many rows, and others"]
    server.forget()


def test_nobody_writes_while_it_is_held_still_and_everybody_afterwards(server: MariaDb) -> None:
    meanwhile = "SET lock_wait_timeout = 1; INSERT INTO sections (name) VALUES ('meanwhile')"
    with server._still(), pytest.raises(BackupError, match="Lock wait timeout exceeded"):
        asked(server, meanwhile)
    asked(server, "INSERT INTO sections (name) VALUES ('afterwards')")
