"""Anonymizing a production archive: what was planted is nowhere in it, and FlexMeasures works on the rest."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from cariflex_backup.anonymize.rules import RULES, Emptied
from cariflex_backup.archive import archive_at, unpacked
from tests.integration.backup.conftest import START, Program
from tests.integration.grafana.conftest import FLEXMEASURES_USER, HOME, IMAGES, ROOT, Server, docker, load

pytestmark = pytest.mark.docker

VTN_IMAGE = "CARIFLEX_TEST_FLEXMEASURES_OPENADR_VTN_IMAGE"
PERSON, EMAIL, ADDRESS = "Zélie Canari", "zelie.canari@habitant.mq", "12 rue du Canari Jaune"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.Y2FuYXJp"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$Y2FuYXJpY2FuYXJp$c2VjcmV0"
FINGERPRINT = "3A:9F:11:C2:77:0B:D4:E8:5A:61"
VEN = "VEN-Zelie-Canari"
PLACE = (14.603217, -61.067913)
CANARIES = [
    *("canari", "zelie", "zélie", "habitant", "192.0.2.77", "0696 12 34 56", TOKEN, HASH, FINGERPRINT, VEN),
    *("14.603217", "61.067913", "JBSWY3DPEHPK3PXP", "heatpump of"),
]
# id of the household's own asset and sensors
ASSET, POWER, POSITION = 9001, 9001, 9002
EVERYTHING = {
    "name": PERSON,
    "e-mail": EMAIL,
    PERSON: True,
    "address": {"street": ADDRESS, "latitude": PLACE[0]},
    "consumption_is_positive": True,
    "power-capacity": "13.4721 kW",
    "consumption-price": {"sensor": 84, "name": PERSON},
    "soc-max": PLACE[0],
    "commodity": PERSON,
    "phones": ["0696 12 34 56"],
}


def plant(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """A household in every table that keeps rows, with what could name it in every column that could hold it."""
    run = connection.execute
    run("INSERT INTO plan (id, name, default_rate_limit) VALUES (9, %s, %s)", (f"of {PERSON}", PERSON))
    run("INSERT INTO account (id, name) VALUES (1, 'Cariflex') ON CONFLICT DO NOTHING")
    run(
        "INSERT INTO account (id, name, logo_url, primary_color, attributes, secrets, plan_id, consultancy_account_id)"
        " VALUES (9, %s, %s, 'canari', %s, %s, 9, 1)",
        (f"Foyer {PERSON}", f"https://habitant.mq/{PERSON}.png", Jsonb(EVERYTHING), Jsonb({"token": TOKEN})),
    )
    run("INSERT INTO account_role (id, name, description) VALUES (9, %s, %s)", (PERSON, ADDRESS))
    run("INSERT INTO roles_accounts (account_id, role_id) VALUES (9, 9)")
    run("INSERT INTO role (id, name, description) VALUES (8, 'admin', %s), (9, %s, 'x')", (EMAIL, f"r {PERSON}"))
    run(
        "INSERT INTO fm_user (id, email, username, password, fs_uniquifier, account_id, timezone, active,"
        " last_login_at, last_seen_at, login_count, tf_totp_secret, tf_primary_method)"
        " VALUES (9, %s, %s, %s, %s, 9, 'Europe/Canari', true, now(), now(), 7, 'JBSWY3DPEHPK3PXP', 'zelie')",
        (EMAIL, "zelie_canari", HASH, "canari" * 5),
    )
    run("INSERT INTO roles_users (user_id, role_id) VALUES (9, 8)")
    run(
        "INSERT INTO data_source (id, name, type, user_id, account_id, model, version, attributes, attributes_hash)"
        " VALUES (9, 'zelie_canari', 'user', 9, 9, 'Canari', 'canari', %s, %s)",
        (Jsonb(EVERYTHING), b"canari \xff zelie.canari@habitant.mq"),
    )
    run("INSERT INTO generic_asset_type (id, name, description) VALUES (9, %s, %s)", (f"t {PERSON}", ADDRESS))
    run("UPDATE generic_asset SET account_id = 1, latitude = %s, longitude = %s", PLACE)
    for sensor in load("playbooks/vars/topology.yml")["topology_declared"]["sensors"].values():
        run("UPDATE sensor SET attributes = %s WHERE id = %s", (Jsonb(sensor.get("attributes", {})), sensor["id"]))
    run(
        "INSERT INTO generic_asset (id, name, latitude, longitude, generic_asset_type_id, account_id, attributes,"
        " sensors_to_show, flex_context, flex_model, sensors_to_show_as_kpis, external_id, secrets, description)"
        " VALUES (%s, %s, %s, %s, 9, 9, %s, %s, %s, %s, %s, '192.0.2.77', %s, %s)",
        (
            *(ASSET, f"heatpump of {PERSON}", *PLACE, Jsonb(EVERYTHING)),
            Jsonb([{"title": PERSON, "plots": [{"sensors": [POWER, 41]}]}, 42, [43, PERSON]]),
            *(Jsonb(EVERYTHING), Jsonb(EVERYTHING), Jsonb([{"title": EMAIL, "sensor": POWER}])),
            *(Jsonb({"key": TOKEN}), f"{ADDRESS}, {PLACE}"),
        ),
    )
    for number, unit in ((POWER, "kW"), (POSITION, "canari")):
        run(
            "INSERT INTO sensor (id, name, unit, timezone, event_resolution, generic_asset_id, attributes,"
            " knowledge_horizon_fnc, knowledge_horizon_par)"
            " VALUES (%s, %s, %s, 'Europe/Canari', '15 minutes', %s, %s, 'ex_post', %s)",
            (
                number,
                f"{PERSON} {number}",
                unit,
                ASSET,
                Jsonb(EVERYTHING),
                json.dumps({"ex_post_horizon": "PT0S", "of": PERSON}),
            ),
        )
        run(  # ten weeks of a daily shape
            "INSERT INTO timed_belief SELECT event, interval '0', 0.5, CASE WHEN %(unit)s = 'kW'"
            " THEN 2 + sin(extract(epoch FROM event) / 86400 * 2 * pi()) ELSE %(place)s END, %(number)s, 9"
            " FROM generate_series(now() - interval '70 days', now(), interval '1 hour') event",
            {"unit": unit, "place": PLACE[0], "number": number},
        )
    run(
        "INSERT INTO ems.openadr_event (ven, event_id, modification_number, signal, status, test_event, intervals,"
        " received_at, answered_at) VALUES (%s, %s, 0, 'SIMPLE', %s, false, %s, now(), now())",
        (VEN, f"call {PERSON}", PERSON, Jsonb([[3600, PLACE[0], PERSON]])),
    )
    run(
        "INSERT INTO ems.openadr_opt (ven, event_id, modification_number, time, opt_type, reason)"
        " VALUES (%s, %s, 0, now(), 'optOut', %s)",
        (VEN, f"call {PERSON}", f"{PERSON} est absente"),
    )
    run("SELECT setval(seqrelid::regclass, 10000) FROM pg_sequence")  # ids were given here, unknown to the counters


def plant_openadr(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The same in the VTN's store."""
    run = connection.execute
    event = f"call {PERSON}"
    run("INSERT INTO ven VALUES (%s, %s, now())", (VEN, FINGERPRINT))
    run("INSERT INTO event VALUES (%s, 0, now())", (event,))
    run(
        "INSERT INTO event_version VALUES (%s, 0, 'SIMPLE', now(), now() + interval '1 hour', 0, false, false, now(),"
        " %s)",
        (event, [VEN, f"group:{PERSON}", "x,\"y' {canari}"]),
    )
    run("INSERT INTO event_interval VALUES (%s, 0, 0, 3600, %s)", (event, PLACE[0]))
    run("INSERT INTO event_target VALUES (%s, 0, %s, false)", (event, VEN))
    run(
        "INSERT INTO opt (event_id, modification_number, ven_id, opt_type, received_at)"
        " VALUES (%s, 0, %s, 'optIn', now())",
        (event, VEN),
    )
    connection.commit()


# what rows of those tables have to say to be taken: references, and words that the tables know
FITTING: dict[str, dict[str, Any]] = {
    **{f"public.{name}": {"id": POWER} for name in ("asset", "market", "weather_sensor")},
    **{f"public.{name}_type": {"name": f"{PERSON} type"} for name in ("asset", "market", "weather_sensor")},
    **{f"ems.{name}": {"status": "ok", "kind": "full"} for name in ("backup_run", "drill_run")},
    "ems.health_sample": {"kind": "host", "disk_used_fraction": 0.5},
    "ems.s2_instruction": {"factor": 1},
    "": {
        **dict.fromkeys(("sensor_id", "market_id", "generic_asset_id", "affected_asset_id"), POWER),
        **{f"{name}_type_name": f"{PERSON} type" for name in ("asset", "market", "weather_sensor")},
        "ven_id": VEN,
        "point_id": 1,
    },
}


def plant_in_the_rest(connection: psycopg.Connection[tuple[Any, ...]], database: str) -> set[str]:
    """A row in every table that is to be emptied, with a canary in each column of each type; names of those types."""
    connection.execute("SET session_replication_role = replica")
    types = set()
    for table, rule in RULES[database].items():
        if not isinstance(rule, Emptied):
            continue
        columns = connection.execute(
            "SELECT attname, format_type(atttypid, NULL), attidentity <> '' FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (table,),
        ).fetchall()
        values: dict[str, Any] = {}
        for name, type_, generated in columns:
            types.add(type_)
            texts: dict[str, Any] = {
                "text": f"{PERSON} {name}",
                "character varying": f"{PERSON} {name}"[:80],
                "jsonb": Jsonb(EVERYTHING),
                "json": json.dumps(EVERYTHING),
                "text[]": [PERSON, EMAIL],
                "uuid": "00000000-0000-4000-8000-00000000000c",
                "boolean": True,
                "interval": "1 hour",
                "double precision": PLACE[0],
                "annotation_type": "label",
            }
            if not generated:
                values[name] = "2026-01-02 03:04:05+00" if "timestamp" in type_ else texts.get(type_, 9)
        values |= {name: value for name, value in FITTING.get(table, {}).items() if name in values}
        values |= {name: value for name, value in FITTING[""].items() if name in values}
        connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
                sql.Identifier(*table.split(".")),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join([sql.Placeholder()] * len(values)),
            ),
            list(values.values()),
        )
    connection.execute("SET session_replication_role = origin")
    connection.commit()
    return types


@pytest.fixture(scope="module")
def planted(server: Server) -> Iterator[Server]:
    """The server with copies of its databases, full of canaries; afterwards they are as they were."""
    if not os.environ.get(VTN_IMAGE):
        pytest.skip(f"no image to test with: set {VTN_IMAGE}")
    with server.connect("postgres", "postgres") as connection:
        connection.autocommit = True
        for name in RULES:
            connection.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}_kept"')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{name}_kept" OWNER "{name}"')
            connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO PUBLIC')
        connection.execute("CREATE ROLE zelie_canari LOGIN")
        try:
            _migrate_openadr(server)
            with server.connect("postgres") as one:
                plant(one)
                types = plant_in_the_rest(one, "flexmeasures")
                one.execute("GRANT SELECT ON sensor TO zelie_canari")
            with server.connect("postgres", "openadr") as one:
                plant_openadr(one)
                types |= plant_in_the_rest(one, "openadr")
            assert types >= {"text", "character varying", "json", "jsonb", "text[]", "double precision"}
            yield server
        finally:
            for name in RULES:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
                connection.execute(f'ALTER DATABASE "{name}_kept" RENAME TO "{name}"')
            connection.execute("DROP ROLE zelie_canari")


def _migrate_openadr(server: Server) -> None:
    address = f"postgresql+psycopg://openadr:{server.passwords['openadr']}@127.0.0.1:5432/openadr"
    code = (
        "from sqlalchemy import create_engine; from cariflex.vtn import store\n"
        f"with create_engine({address!r}).begin() as connection: store._upgrade(connection)"
    )
    docker(
        *("run", "--rm", "--network", f"container:{server.container}", "--entrypoint", "python"),
        *(os.environ[VTN_IMAGE], "-c", code),
        seconds=180,
    )


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    """What the first test makes for the others."""
    return {}


@pytest.fixture
def program(program: Program, planted: Server, shared: dict[str, Any]) -> Program:
    """The program on production's host, with its archive."""
    topology = load("playbooks/vars/topology.yml")["topology_declared"]
    public = {name: topology["sensors"][name]["id"] for name in ("consumption_price", "temperature")}
    names = ["Cariflex", *topology["assets"], *topology["sensors"], *topology["asset_types"]]
    program = program.with_(environment="prod", anonymize={"names": names, "sensors": public, "canaries": CANARIES})
    if not shared:
        done = program.run("run")
        assert done.status == 0, done.error
        shared["identity"] = program.identity
        shared["files"] = {path.name: path.read_bytes() for path in program.root.glob("2*")}
    for name, content in shared["files"].items():
        (program.root / name).write_bytes(content)
    return replace(program, identity=shared["identity"])


def anonymized(program: Program, *options: str, code: str = START) -> Any:
    """Anonymize, and take the answer."""
    return program.run("anonymize", "--identity-on-stdin", "--for", "test", *options, stdin=program.identity, code=code)


def no_leftovers(program: Program) -> None:
    """Hold that nothing of a run is left but what it was to make."""
    assert not [path.name for path in program.root.iterdir() if path.name.startswith((".unpacked", ".staging"))]
    assert docker("ps", "--all", "--quiet", "--filter", "label=cariflex.restore") == ""


def asked(server: Server, query: str, database: str = "flexmeasures") -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with server.connect("postgres", database) as connection:
        return connection.execute(query.encode()).fetchall()


KEPT = (
    "SELECT id, generic_asset_id, event_resolution FROM sensor ORDER BY id",
    "SELECT id, account_id, generic_asset_type_id, parent_asset_id FROM generic_asset ORDER BY id",
    "SELECT id, account_id, active FROM fm_user ORDER BY id",
    "SELECT sensor_id, source_id, count(*), count(DISTINCT event_start) FROM timed_belief GROUP BY 1, 2 ORDER BY 1, 2",
    # hours of the week and the horizons: the times moved by whole weeks
    "SELECT sensor_id, extract(epoch FROM event_start)::bigint % 604800 AS second, belief_horizon, count(*)"
    " FROM timed_belief GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    "SELECT id, name FROM sensor WHERE id < 200 ORDER BY id",
    "SELECT event_start, event_value FROM timed_belief WHERE sensor_id = 84 ORDER BY 1, 2",
)


def test_nobody_is_left_and_flexmeasures_works_on_it(program: Program, planted: Server, tmp_path: Path) -> None:
    before = [asked(planted, query) for query in KEPT]
    shape = "SELECT sensor_id, event_start, event_value FROM timed_belief WHERE sensor_id = 9001 ORDER BY 2"
    values = [value for _, _, value in asked(planted, shape)]
    done = anonymized(program)
    assert done.status == 0, done.error
    no_leftovers(program)
    made = archive_at(Path(done.told["archive"]))
    assert (made.path.stat().st_mode & 0o777, made.encrypted) == (0o600, False)
    report = Path(done.told["report"]).read_text()
    tables = json.loads(report)["databases"]["flexmeasures"]
    assert tables["public.fm_user"]["changed"]["email"] == 1
    assert tables["public.audit_log"] == {"rows": 0, "removed": 1, "why": "who did what, in free text"}
    changed = [table.get("changed", {}) for one in json.loads(report)["databases"].values() for table in one.values()]
    assert done.told["changed"] == sum(sum(columns.values()) for columns in changed)
    everything = report
    with unpacked(made, tmp_path) as folder:
        assert sorted(path.name for path in (folder / "postgres").iterdir()) == [
            *("flexmeasures.dump", "globals.sql", "openadr.dump"),
        ]
        for path in folder.rglob("*"):
            if path.suffix == ".dump":
                everything += _as_text(planted, path)
            elif path.is_file():
                everything += path.read_text()
    for canary in CANARIES:
        assert canary.casefold() not in everything.casefold(), canary
    assert b"canari".hex() not in everything  # bytes

    # to the test environment
    test = program.with_(environment="test", root=str(tmp_path / "test"))
    (tmp_path / "test").mkdir()
    restored = test.run("restore", str(made.path), "--confirm", "test")
    assert restored.status == 0, restored.error
    assert restored.told["parts"] == ["postgres"]
    assert [asked(planted, query) for query in KEPT] == before
    _names_fit(planted)
    moved = [value for _, _, value in asked(planted, shape)]
    assert moved != values
    assert 0.5 < sum(moved) / sum(values) < 0.95
    assert max(moved) <= max(values)
    with planted.connect("grafana_ro") as connection:
        assert connection.execute("SELECT count(*) > 0 FROM timed_belief JOIN sensor ON id = sensor_id").fetchone()
    told = _flexmeasures(planted, tmp_path)
    assert told["declared"] == 200, told
    assert told["beliefs"] == len(values) == 70 * 24 + 1
    # the declaration found every sensor as it declares it
    assert told["sensors"] == []
    assert asked(planted, KEPT[5]) == before[5]


def _as_text(server: Server, dump: Path) -> str:
    """A dump's rows and definitions as SQL."""
    shutil.copy(dump, dump.parent / "one.custom")
    try:
        return docker(
            *("run", "--rm", "--user", "0", "--entrypoint", "pg_restore", "--volume", f"{dump.parent}:/dumps:ro"),
            *(os.environ[IMAGES[0]], "--file=-", "/dumps/one.custom"),
            seconds=180,
        )
    finally:
        (dump.parent / "one.custom").unlink()


def _names_fit(server: Server) -> None:
    """Hold that what was the same name in several places is so still."""
    ((username, source, email),) = asked(
        server, "SELECT username, s.name, email FROM fm_user u JOIN data_source s ON s.user_id = u.id WHERE u.id = 9"
    )
    assert username == source
    assert re.fullmatch(r"user-[a-z2-7]{12}@anonymous\.invalid", email)
    ((ven, event),) = asked(
        server,
        "SELECT ven, event_id FROM ems.openadr_opt WHERE opt_type = 'optOut' AND ven <> ''"
        " AND reason IS NULL AND event_id IN (SELECT event_id FROM ems.openadr_event"
        " WHERE signal = 'SIMPLE')",
    )
    assert asked(server, "SELECT ven_id, event_id FROM opt", "openadr") == [(ven, event)]
    ((asked_for,),) = asked(server, "SELECT asked FROM event_version", "openadr")
    assert (len(asked_for), asked_for[0]) == (3, ven)
    ((attributes, latitude, longitude, shown),) = asked(
        server, "SELECT attributes, latitude, longitude, sensors_to_show FROM generic_asset WHERE id = 9001"
    )
    assert (latitude, longitude) == (14.65, -61)
    assert attributes == {
        "consumption_is_positive": True,
        "power-capacity": "13.5 kW",
        "consumption-price": {"sensor": 84},
        "soc-max": 14.6,
    }
    assert shown == [{"plots": [{"sensors": [POWER, 41]}]}, 42, [43]]


# within FlexMeasures: what is declared fits, and values can be read
_INSIDE = """
import json, sys
from flexmeasures.app import create
app = create()
topology = json.loads(sys.argv[1])
from flexmeasures.data.models.time_series import Sensor
from flexmeasures.data import db
with app.app_context():
    answer = app.test_client().post(
        "/cariflex/v1/topology", json=topology, headers={"Authorization": "Bearer " + "t" * 32}
    )
    body = answer.get_json()
    frame = db.session.get(Sensor, 9001).search_beliefs(most_recent_beliefs_only=False)
    sensors = [change for change in body.get("changes", []) if change["path"].startswith("sensors.")]
    print("told", json.dumps({
        "declared": answer.status_code, "said": body.get("message"), "beliefs": len(frame),
        "sensors": sensors,
    }))
"""


def _flexmeasures(server: Server, folder: Path) -> dict[str, Any]:
    """What FlexMeasures says of the database, once the topology of test has been declared."""
    declared = load("playbooks/vars/topology.yml")["topology_declared"]
    sections = ("account", "users", "asset_types", "assets", "sensors")
    topology = {"timezone": declared["site"]["timezone"], **{name: declared[name] for name in sections}}
    passwords = {email: f"password of {email}" for email in declared["users"]}
    address = f"postgresql://flexmeasures:{server.passwords['flexmeasures']}@127.0.0.1:5432/flexmeasures"
    (folder / "settings.cfg").write_text(
        'FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"]\nCARIFLEX_TOPOLOGY_TOKEN_FILE = "/token"\n'
        'SECURITY_PASSWORD_SALT = "s"\nSECURITY_TWO_FACTOR = False\nSECURITY_PASSWORD_CHECK_BREACHED = None\n'
        "FLEXMEASURES_CREATE_TEMPLATE_ASSETS_ON_STARTUP = False\n"
        f'SECRET_KEY = "k"\nFLEXMEASURES_ENV = "production"\nSQLALCHEMY_DATABASE_URI = {address!r}\n'
    )
    (folder / "token").write_text("t" * 32)
    (folder / "settings.cfg").chmod(0o644)
    (folder / "token").chmod(0o644)
    command = [
        *("docker", "run", "--rm", "--network", f"container:{server.container}", "--user", FLEXMEASURES_USER),
        *("--workdir", HOME, "--tmpfs", f"{HOME}:uid=10002,gid=10002", "--env", f"HOME={HOME}"),
        *("--volume", f"{ROOT}/files/services/src:/plugin:ro", "--env", "PYTHONPATH=/plugin"),
        *("--volume", f"{folder}/settings.cfg:{HOME}/.flexmeasures.cfg:ro", "--volume", f"{folder}/token:/token:ro"),
        *("--env", "FLEXMEASURES_ENV=production"),
        *(os.environ[IMAGES[1]], "python", "-c", _INSIDE),
        json.dumps({"topology": topology, "passwords": passwords}),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r"^told (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout[-3000:] + done.stderr[-3000:]
    told: dict[str, Any] = json.loads(found[1])
    return told


# rules that let everything through, one for each kind of column
LEAKING = """
import cariflex_backup.anonymize.rules as r, cariflex_backup.anonymize.documents as d
from cariflex_backup.anonymize.pseudonyms import Key
def leak(database, table, **columns): r.RULES[database][table].update(columns)
every = r.Text("x", like="(?s).*")
leak("flexmeasures", "public.fm_user", email=every, username=every, password=every)
leak("flexmeasures", "public.generic_asset", latitude=r.KEEP, external_id=every)
leak("flexmeasures", "public.sensor", name=every)
leak("openadr", "public.event_version", asked=r.Texts("x", like="(?s).*"))
Key.digest = lambda self, data: data
clean = d.cleaned
d.cleaned = lambda document: document if "commodity" in document else clean(document)
"""


def test_what_would_leak_stops_it(program: Program) -> None:
    done = anonymized(program, code=f"{LEAKING}\n{START}")
    assert (done.status, done.told) == (1, None)
    for place in (
        *("fm_user.email: an e-mail address (1)", "fm_user.username: what was there before, or a canary (1)"),
        *("fm_user.password: a token (1)", "generic_asset.latitude: a precise coordinate", "an IP address (1)"),
        *("sensor.name: a name (2)", "generic_asset.attributes: an e-mail address (1), a name (1)"),
        "data_source.attributes_hash: an e-mail address (1)",
    ):
        assert place in done.error
    for canary in CANARIES:
        assert canary.casefold() not in done.error.casefold()
    assert not (program.root / "anonymized").exists()
    no_leftovers(program)


def test_a_column_without_a_rule_stops_it(program: Program) -> None:
    missing = (
        "import cariflex_backup.anonymize.rules as r; r.FLEXMEASURES['public.fm_user'].pop('tf_totp_secret');"
        "r.FLEXMEASURES.pop('ems.s2_status'); r.OPENADR['public.ven']['ven_id'] = r.KEEP"
    )
    done = anonymized(program, code=f"{missing}; {START}")
    assert done.status == 1
    assert "flexmeasures: the column public.fm_user.tf_totp_secret has no rule" in done.error
    assert "flexmeasures: the table ems.s2_status has no rule" in done.error
    assert "openadr: the column public.ven.ven_id is of the type text, which its rule Keep is not for" in done.error
    assert not (program.root / "anonymized").exists()
    no_leftovers(program)


@pytest.mark.parametrize(
    ("target", "message"),
    [("prod", "prod is where the people are"), ("Test", "is no name of an environment"), ("dev2/..", "is no name")],
)
def test_where_people_are_is_no_target(target: str, message: str, program: Program) -> None:
    done = program.run("anonymize", "--for", target)
    assert (done.status, message in done.error) == (1, True), done.error


def test_an_archive_of_the_target_itself_is_refused(program: Program) -> None:
    program = program.with_(environment="dev", recipients=[])
    assert program.run("run").status == 0
    done = program.run("anonymize", "--for", "dev")
    assert (done.status, "is of dev itself: it can be restored there as it is" in done.error) == (1, True), done.error
    no_leftovers(program)
