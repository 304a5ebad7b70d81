"""What is told of a restored database, and how a dump's statements are changed before they are run."""

from typing import Any

import pytest

from cariflex_backup.errors import BackupError
from cariflex_backup.loading import differences, disk_needed, renamed, roles_script
from cariflex_backup.restore import PARTS, parts_named


def database(**tables: tuple[int, str]) -> dict[str, Any]:
    """A part of a manifest, or what is found."""
    return {
        "migration_heads": {"public.alembic_version": "abc"},
        "tables": {f"public.{name}": {"rows": rows, "hash": hash_} for name, (rows, hash_) in tables.items()},
    }


def test_what_is_the_same_does_not_differ() -> None:
    assert differences(database(a=(1, "x"), b=(0, "0")), database(b=(0, "0"), a=(1, "x"))) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (database(), "public.a is missing"),
        (database(a=(3, "x")), "public.a has 3 rows and had 2"),
        (database(a=(2, "y")), "public.a has as many rows, and others"),
        (database(a=(2, "x"), b=(0, "0")), "public.b was not there"),
        (database(a=(2, "x")) | {"migration_heads": {}}, "the migrations in public.alembic_version are not at abc"),
    ],
)
def test_what_differs_is_named(found: dict[str, Any], told: str) -> None:
    assert differences(database(a=(2, "x")), found) == [told]


def test_roles_that_are_there_are_not_made_again() -> None:
    dump = 'CREATE ROLE flexmeasures;\nALTER ROLE flexmeasures WITH LOGIN;\nCREATE ROLE "o\'s ""own""";\n'
    first, second, third = roles_script(dump).splitlines()
    assert "IF to_regrole(quote_ident('flexmeasures')) IS NULL THEN CREATE ROLE flexmeasures; END IF;" in first
    assert second == "ALTER ROLE flexmeasures WITH LOGIN;"
    assert 'to_regrole(quote_ident(\'o\'\'s "own"\')) IS NULL THEN CREATE ROLE "o\'s ""own""";' in third


def test_a_database_gets_another_name_and_keeps_its_owner() -> None:
    script = "\n".join(
        (
            "-- Name: openadr; Type: DATABASE; Schema: -; Owner: openadr",
            "SET statement_timeout = 0;",
            "CREATE DATABASE openadr WITH TEMPLATE = template0 ENCODING = 'UTF8';",
            "ALTER DATABASE openadr OWNER TO openadr;",
            "\\connect openadr",
            "REVOKE CONNECT,TEMPORARY ON DATABASE openadr FROM PUBLIC;",
            "GRANT CONNECT ON DATABASE openadr TO openadr_reader;",
        )
    )
    assert renamed(script, "openadr", "openadr__restored").splitlines() == [
        "CREATE DATABASE \"openadr__restored\" WITH TEMPLATE = template0 ENCODING = 'UTF8';",
        'ALTER DATABASE "openadr__restored" OWNER TO openadr;',
        'REVOKE CONNECT,TEMPORARY ON DATABASE "openadr__restored" FROM PUBLIC;',
        'GRANT CONNECT ON DATABASE "openadr__restored" TO openadr_reader;',
    ]


def test_a_database_whose_name_begins_alike_is_another() -> None:
    assert renamed("ALTER DATABASE openadr2 OWNER TO openadr;", "openadr", "new") == ""


def test_room_is_reckoned_with_for_older_manifests_too() -> None:
    assert disk_needed({"a": {"size": 700, "bytes": 10}, "b": {"bytes": 10}}) == 900


def test_parts_are_restored_in_their_order() -> None:
    assert parts_named("") == PARTS
    assert parts_named("grafana, redis,") == ("redis", "grafana")
    with pytest.raises(BackupError, match="no part redsi to restore, only postgres, redis"):
        parts_named("postgres,redsi")
