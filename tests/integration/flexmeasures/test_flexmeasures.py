"""Our FlexMeasures plugin and module on a real FlexMeasures. The tests share one; each leaves the topology declared."""

import concurrent.futures
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from .conftest import GATE, ROOT, SECRETS, Stack, docker, until

pytestmark = pytest.mark.docker

OPERATOR = "admin@digitribe.fr"


# --- first start -----------------------------------------------------------------------------------------------------


def test_one_of_several_containers_migrates_and_the_others_wait(stack: Stack) -> None:
    logs = {name: stack.logs(name) for name in ("server", "second", "worker")}
    assert sum("flexmeasures-migrate: migrating" in log for log in (logs["server"], logs["second"])) == 1
    assert "flexmeasures-migrate: waiting for the database" in logs["server"]
    assert "flexmeasures-migrate: migrating" not in logs["worker"]
    assert "UniqueViolation" not in "".join(logs.values())


def test_a_later_start_does_nothing_and_does_not_even_load_flexmeasures(stack: Stack) -> None:
    gate = (GATE[0], "-X", "importtime", *GATE[1:], "--", "echo", "started")
    done = subprocess.run(
        ["docker", "exec", stack.container("second"), *gate], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "started\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cariflex.fm_plugin.configuration" in imported
    assert not imported & {"flexmeasures", "sqlalchemy", "alembic", "pandas"}


def test_what_we_take_for_flexmeasures_own_is_its_own(stack: Stack) -> None:
    program = (
        "import json; from cariflex.fm_plugin.plan import *;print(json.dumps([STANDARD_ASSET_TYPES, STANDARD_ROLES]))"
    )
    types, roles = json.loads(docker("exec", stack.container("second"), "python", "-c", program))
    assert dict(stack.sql("SELECT name, description FROM role")) == roles
    found = dict(stack.sql("SELECT name, description FROM generic_asset_type"))
    assert {name: found[name] for name in types} == types


# --- topology --------------------------------------------------------------------------------------------------------


def last_transaction(stack: Stack) -> str:
    """Grows with every transaction that writes; PostgreSQL's own housekeeping is off."""
    return stack.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())")[0][0]


def test_a_dry_run_and_a_second_run_write_nothing(
    stack: Stack, declared: dict[str, Any], passwords: dict[str, str]
) -> None:
    before = last_transaction(stack)
    preview = stack.declare(declared, passwords=passwords, dry_run=True)
    assert preview.status_code == 200
    assert last_transaction(stack) == before
    first = stack.declare(declared, passwords=passwords).json()
    assert first["changes"] == preview.json()["changes"]

    before = last_transaction(stack)
    for dry_run in (False, True):
        again = stack.declare(declared, passwords=passwords, dry_run=dry_run).json()
        assert again["changed"] is False
        assert again["changes"] == []
        assert again["counts"]["unchanged"] > 70
    assert last_transaction(stack) == before


def test_the_sensors_are_exactly_the_documented_ones(stack: Stack, topology: dict[str, Any]) -> None:
    expected = [[str(s["id"]), name, s["unit"]] for name, s in topology["sensors"].items()]
    assert stack.sql("SELECT id, name, unit FROM sensor ORDER BY id") == sorted(expected, key=lambda row: int(row[0]))
    assert len(expected) >= 37
    assert stack.sql("SELECT event_resolution, timezone FROM sensor WHERE id = 86") == [
        ["00:15:00", "America/Martinique"]
    ]


def test_assets_form_the_declared_tree_at_the_declared_place(stack: Stack, topology: dict[str, Any]) -> None:
    rows = stack.sql(
        "SELECT a.name, t.name, coalesce(p.name, ''), a.latitude, a.longitude FROM generic_asset a"
        " JOIN generic_asset_type t ON t.id = a.generic_asset_type_id"
        " LEFT JOIN generic_asset p ON p.id = a.parent_asset_id"
    )
    site = topology["assets"]["Cariflex"]
    place = [str(site["latitude"]), str(site["longitude"])]
    assert sorted(rows) == sorted(
        [name, asset["type"], asset.get("parent", ""), *place] for name, asset in topology["assets"].items()
    )


def test_settings_of_the_scheduler_are_kept_by_id_and_only_as_declared(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    wanted = json.loads(json.dumps(topology))
    site, battery = wanted["assets"]["Cariflex"], wanted["assets"]["Bat_01"]
    site["flex_context"] = {
        "consumption-price": {"sensor": "consumption_price"},
        "production-price": {"sensor": "production_price"},
        "site-power-capacity": "500 kW",
    }
    battery["flex_model"] = {"soc-max": "100 kWh", "power-capacity": "50 kW"}
    wanted["sensors"]["bat_01_power"]["attributes"] = {"consumption_is_positive": True}
    first = stack.declare(wanted).json()
    assert {change["path"]: set(change["after"]) for change in first["changes"]} == {
        "assets.Cariflex": {"flex_context"},
        "assets.Bat_01": {"flex_model"},
        "sensors.bat_01_power": {"attributes"},
    }
    assert json.loads(stack.sql("SELECT flex_context FROM generic_asset WHERE name = 'Cariflex'")[0][0]) == {
        "consumption-price": {"sensor": 84},
        "production-price": {"sensor": 85},
        "site-power-capacity": "500 kW",
    }
    assert stack.declare(wanted).json()["changed"] is False
    assert stack.declare(topology).json()["changed"] is False, "what is not declared stays"
    site["flex_context"] = {"site-power-capacity": "50 apples", "price": "1 EUR/MWh"}
    refused = stack.declare(wanted)
    assert refused.status_code == 422
    assert [problem["path"] for problem in refused.json()["problems"]] == [
        "assets.Cariflex.flex_context.site-power-capacity",
        "assets.Cariflex.flex_context.price",
    ]
    site["flex_context"] = battery["flex_model"] = wanted["sensors"]["bat_01_power"]["attributes"] = {}
    assert len(stack.declare(wanted).json()["changes"]) == 3


def token_of(stack: Stack, password: str, email: str = OPERATOR) -> requests.Response:
    return stack.request("POST", "/api/requestAuthToken", json={"email": email, "password": password})


def test_declared_users_log_in_and_a_new_password_ends_the_old_ones_tokens(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    for email, password in passwords.items():
        assert token_of(stack, password, email).status_code == 200
    header = {"Authorization": token_of(stack, passwords[OPERATOR]).json()["auth_token"]}
    assert stack.request("GET", "/api/v3_0/sensors/84", headers=header).status_code == 200

    changed = stack.declare(topology, passwords={OPERATOR: "another password"}).json()
    assert [change["after"] for change in changed["changes"]] == [{"password": "as declared"}]
    assert token_of(stack, passwords[OPERATOR]).status_code == 401
    assert token_of(stack, "another password").status_code == 200
    assert stack.request("GET", "/api/v3_0/sensors/84", headers=header).status_code == 401
    assert stack.declare(topology, passwords={OPERATOR: "another password"}).json()["changed"] is False
    assert stack.declare(topology).json()["changed"] is False, "without a password it stays as it is"
    stack.declare(topology, passwords=passwords)


def test_sensors_made_otherwise_get_ids_above_the_declared_ones_and_are_listed(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    header = {"Authorization": token_of(stack, passwords[OPERATOR]).json()["auth_token"]}
    asset_id = int(stack.sql("SELECT id FROM generic_asset WHERE name = 'Cariflex'")[0][0])
    body = {"name": "extra", "unit": "kW", "event_resolution": "PT5M", "generic_asset_id": asset_id}
    made = stack.request("POST", "/api/v3_0/sensors", json=body, headers=header)
    assert made.status_code == 201, made.text
    assert made.json()["id"] > max(sensor["id"] for sensor in topology["sensors"].values())

    extra = {"id": made.json()["id"], "name": "extra", "asset": "Cariflex"}
    assert stack.declare(topology).json()["undeclared"]["sensors"] == [extra]
    topology["sensors"]["extra"] = {"id": 301, "unit": "kW", "resolution": "PT5M", "asset": "Cariflex"}
    refused = stack.declare(topology)
    assert refused.status_code == 409
    assert f"with the id {extra['id']}" in refused.json()["problems"][0]["problem"]
    stack.sql("DELETE FROM sensor WHERE name = 'extra'")


def test_what_a_sensor_measures_may_change_until_it_has_data(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    sensor = topology["sensors"]["production_price"]
    original = dict(sensor)
    sensor.update(unit="EUR/kWh", resolution="PT15M")
    changed = stack.declare(topology).json()["changes"]
    assert changed == [
        {
            "action": "update",
            "path": "sensors.production_price",
            "before": {"unit": "EUR/MWh", "resolution": "PT1H"},
            "after": {"unit": "EUR/kWh", "resolution": "PT15M"},
        }
    ]
    assert stack.sql("SELECT unit FROM sensor WHERE id = 85") == [["EUR/kWh"]]
    sensor.update(original)
    stack.declare(topology)

    header = {"Authorization": token_of(stack, passwords[OPERATOR]).json()["auth_token"]}
    values = {"start": "2026-01-01T00:00:00+00:00", "duration": "PT1H", "values": [42.0], "unit": "EUR/MWh"}
    stored = stack.request("POST", "/api/v3_0/sensors/85/data", json=values, headers=header)
    assert stored.status_code == 200, stored.text
    sensor.update(unit="EUR/kWh", resolution="PT15M")
    topology["sensors"]["new"] = {"id": 302, "unit": "kW", "resolution": "PT5M", "asset": "Bat_01"}
    refused = stack.declare(topology)
    assert refused.status_code == 409
    assert [problem["path"] for problem in refused.json()["problems"]] == [
        "sensors.production_price.unit",
        "sensors.production_price.resolution",
    ]
    assert stack.sql("SELECT unit FROM sensor WHERE id IN (85, 302)") == [["EUR/MWh"]]
    assert stack.sql("SELECT event_value FROM timed_belief WHERE sensor_id = 85") == [["42"]]


def test_assets_and_users_follow_the_topology(stack: Stack, topology: dict[str, Any]) -> None:
    original = json.loads(json.dumps(topology))
    topology["assets"]["Bat_10"].update(type="building", parent="Bat_09", latitude=14.7, longitude=-61.1)
    topology["users"][OPERATOR].update(username="chief", roles=["account-admin", "admin-reader"])
    topology["sensors"]["bat_10_power"].update(asset="Bat_09", timezone="UTC")
    paths = [change["path"] for change in stack.declare(topology).json()["changes"]]
    assert paths == [f"users.{OPERATOR}", "assets.Bat_10", "sensors.bat_10_power"]
    assert stack.declare(topology).json()["changed"] is False
    roles = stack.sql(
        "SELECT r.name FROM role r JOIN roles_users ru ON ru.role_id = r.id JOIN fm_user u ON u.id = ru.user_id"
        " WHERE u.username = 'chief' ORDER BY 1"
    )
    assert roles == [["account-admin"], ["admin-reader"]]
    assert len(stack.declare(original).json()["changes"]) == 3
    assert stack.sql("SELECT username FROM fm_user WHERE email = 'admin@digitribe.fr'") == [["admin"]]


@pytest.mark.parametrize("unit", ["W/m²", "°C", "%", "dimensionless", "EUR/MWh", "m/s", "kWh", "MVA", "XPF/MWh"])
def test_units_are_kept_as_written(stack: Stack, topology: dict[str, Any], unit: str) -> None:
    topology["sensors"]["unit_test"] = {"id": 303, "unit": unit, "resolution": "PT5M", "asset": "Bat_01"}
    answer = stack.declare(topology)
    assert answer.status_code == 200, answer.text
    assert stack.sql("SELECT unit FROM sensor WHERE id = 303") == [[unit]]
    stack.sql("DELETE FROM sensor WHERE id = 303")


def test_everything_that_is_wrong_is_named_at_once(stack: Stack, topology: dict[str, Any]) -> None:
    topology["sensors"]["irradiance"]["unit"] = "W/m2"
    topology["sensors"]["temperature"]["asset"] = "Nowhere"
    topology["assets"]["PV_01"]["parent"] = "Cariflx"
    answer = stack.declare(topology)
    assert answer.status_code == 422
    assert {problem["path"]: problem["value"] for problem in answer.json()["problems"]} == {
        "assets.PV_01.parent": "Cariflx",
        "sensors.irradiance.unit": "W/m2",
        "sensors.temperature.asset": "Nowhere",
    }
    assert all(problem["fix"] for problem in answer.json()["problems"])


def test_clashes_with_another_account_are_named(stack: Stack, topology: dict[str, Any]) -> None:
    topology["account"] = "Another"
    problems = {problem["path"]: problem["problem"] for problem in stack.declare(topology).json()["problems"]}
    assert problems[f"users.{OPERATOR}"] == "is a user of the account Cariflex"
    assert "of the account Cariflex" in problems["sensors.pv_01_power.id"]
    assert stack.sql("SELECT name FROM account") == [["Cariflex"]]


def test_nothing_is_written_when_the_last_write_fails(stack: Stack, topology: dict[str, Any]) -> None:
    stack.sql("ALTER TABLE sensor ADD CONSTRAINT refuse CHECK (id <> 304)")
    topology["assets"]["Half"] = {"type": "battery", "parent": "Cariflex"}
    topology["sensors"]["half"] = {"id": 304, "unit": "kW", "resolution": "PT5M", "asset": "Half"}
    before = stack.sql("SELECT (SELECT count(*) FROM generic_asset), (SELECT count(*) FROM asset_audit_log)")
    assert stack.declare(topology).status_code == 409
    assert stack.sql("SELECT (SELECT count(*) FROM generic_asset), (SELECT count(*) FROM asset_audit_log)") == before
    stack.sql("ALTER TABLE sensor DROP CONSTRAINT refuse")


def test_calls_at_the_same_time_do_not_get_in_each_others_way(stack: Stack, topology: dict[str, Any]) -> None:
    topology["sensors"]["together"] = {"id": 305, "unit": "kW", "resolution": "PT5M", "asset": "Bat_01"}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: stack.declare(topology), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert sum(answer.json()["changed"] for answer in answers) == 1
    stack.sql("DELETE FROM sensor WHERE id = 305")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": SECRETS["flexmeasures_topology_token"]}, 401),
        ({"Authorization": "Bearer " + SECRETS["flexmeasures_topology_token"][:-1]}, 401),
        ({"Authorization": "Bearer ü"}, 401),
        ({"Authorization": f"Bearer {SECRETS['flexmeasures_topology_token']}"}, 422),
        ({"Authorization": f"Bearer {SECRETS['flexmeasures_topology_token']}", "Host": "evil.example"}, 400),
    ],
)
def test_only_the_token_opens(stack: Stack, headers: dict[str, str], status: int) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    assert stack.request("POST", "/cariflex/v1/topology", json={}, headers=encoded).status_code == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'"' + b"x" * 17_000_000 + b'"', 413),
        (b"[]", 422),
    ],
    ids=["empty", "half", "no UTF-8", "deep", "large", "list"],
)
def test_what_is_no_request_is_refused(stack: Stack, data: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {SECRETS['flexmeasures_topology_token']}"}
    answer = stack.request("POST", "/cariflex/v1/topology", data=data, headers=headers)
    assert answer.status_code == status
    assert answer.json()["message"]


def test_a_new_token_needs_no_restart(stack: Stack, topology: dict[str, Any]) -> None:
    path = stack.folder / "secrets/flexmeasures_topology_token"
    try:
        path.write_text("another-token-0123456789")
        assert stack.declare(topology).status_code == 401
        assert stack.declare(topology, token="another-token-0123456789").status_code == 200
        path.write_text("short")
        assert stack.declare(topology, token="short").status_code == 503
    finally:
        path.write_text(SECRETS["flexmeasures_topology_token"])


# --- observations ----------------------------------------------------------------------------------------------------

AT = "2026-05-04T10:00:0{}Z"
STATE: dict[str, Any] = {
    "kind": "s2_status",
    "resource": "ev_01",
    "time": AT.format(0),
    "power_kw": 11.0,
    "stored_kwh": 30.5,
    "fill_level": 50.8,
    "connected": True,
    "limit_kw": None,
}
INSTRUCTION: dict[str, Any] = {
    "kind": "s2_instruction",
    "resource": "ev_01",
    "instruction_id": "6e1d4a0e-8f5f-4b52-9a0f-0d7c5f3b2a10",
    "execution_time": AT.format(1),
    "power_kw": 11.0,
    "limit_kw": 11.0,
    "factor": 0.75,
    "mode": "charge",
    "reason": "own",
    "event_ids": ["cap-1"],
    "status": "SENT",
    "times": {"SENT": AT.format(1)},
}


def observe(stack: Stack, passwords: dict[str, str], *observations: Any, email: str = "ven@cariflex.internal") -> Any:
    """Report observations as a user."""
    login = stack.request("POST", "/api/requestAuthToken", json={"email": email, "password": passwords[email]})
    return stack.request(
        "POST",
        "/cariflex/v1/observations",
        json={"observations": list(observations)},
        headers={"Authorization": login.json()["auth_token"]},
    )


def test_observations_are_stored_once_whatever_the_order(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    assert topology
    times = {"SENT": AT.format(1), "ACCEPTED": AT.format(2), "SUCCEEDED": AT.format(4)}
    done = {**INSTRUCTION, "status": "SUCCEEDED", "times": times}
    for observations in ([STATE, INSTRUCTION], [STATE, done], [done, INSTRUCTION]):
        answer = observe(stack, passwords, *observations)
        assert (answer.status_code, answer.json()) == (200, {"stored": 2}), answer.text
    rows = stack.sql("SELECT status, event_ids, accepted_at, started_at, ended_at FROM ems.s2_instruction")
    assert rows == [["SUCCEEDED", "{cap-1}", "2026-05-04 10:00:02+00", "", "2026-05-04 10:00:04+00"]]
    assert stack.sql("SELECT resource, power_kw, connected FROM ems.s2_status") == [["ev_01", "11", "t"]]


EVENT: dict[str, Any] = {
    "kind": "openadr_event",
    "ven": "ven-1",
    "event_id": "cap-1",
    "modification_number": 0,
    "signal": "LOAD_CONTROL",
    "status": "far",
    "starts_at": AT.format(5),
    "ends_at": AT.format(9),
    "intervals": [[4, 50]],
    "received_at": AT.format(1),
    "answered_at": AT.format(1),
}
OPT: dict[str, Any] = {
    **{name: EVENT[name] for name in ("ven", "event_id", "modification_number")},
    "kind": "openadr_opt",
    "time": AT.format(1),
    "opt_type": "optOut",
    "reason": "maintenance",
}
RUN: dict[str, Any] = {
    "kind": "schedule_run",
    "id": "5b0f3a52-2f61-4d0b-9a3e-4fb0b3d1c0aa",
    "started_at": AT.format(1),
    "trigger": "rhythm",
    "status": "running",
}


def test_events_opts_and_runs_are_stored_once_and_the_last_word_counts(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    assert topology
    later = {**EVENT, "status": "active", "received_at": AT.format(2)}
    ended = {**RUN, "status": "ok", "finished_at": AT.format(8), "cost_eur": 1.5, "baseline_cost_eur": 2.5}
    for observations in ([EVENT, OPT, RUN], [later, OPT, ended], [EVENT, OPT, RUN]):
        answer = observe(stack, passwords, *observations)
        assert (answer.status_code, answer.json()) == (200, {"stored": 3}), answer.text
    assert stack.sql("SELECT event_id, signal, status, intervals FROM ems.openadr_event") == [
        ["cap-1", "LOAD_CONTROL", "active", "[[4.0, 50.0]]"]
    ]
    assert stack.sql("SELECT opt_type, reason FROM ems.openadr_opt") == [["optOut", "maintenance"]]
    assert stack.sql("SELECT trigger, status, cost_eur, baseline_cost_eur FROM ems.schedule_run") == [
        ["rhythm", "ok", "1.5", "2.5"]
    ]


def test_states_of_more_than_400_days_ago_are_forgotten(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    assert topology
    assert observe(stack, passwords, {**STATE, "time": "2020-01-01T00:00:00Z"}).status_code == 200
    assert stack.sql("SELECT count(*) FROM ems.s2_status WHERE time < '2021-01-01'") == [["0"]]


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        ({**STATE, "kind": "other"}, "kind"),
        ({**STATE, "power_kw": "much"}, "power_kw"),
        ({**STATE, "time": "2026-05-04T10:00:00"}, "timezone"),
        ({**INSTRUCTION, "factor": 1.5}, "factor"),
        ({**INSTRUCTION, "times": {}}, "times"),
        ({**INSTRUCTION, "event_ids": ["x"] * 101}, "event_ids"),
        ({**EVENT, "modification_number": -1}, "modification_number"),
        ({**EVENT, "intervals": [[1]]}, "intervals"),
        ({**OPT, "opt_type": "maybe"}, "opt_type"),
        ({**RUN, "id": "1"}, "id"),
        ({**RUN, "solver_seconds": -1}, "solver_seconds"),
        ({**STATE, "more": 1}, "more"),
        (7, "observations"),
    ],
)
def test_an_observation_that_is_wrong_is_named_and_nothing_is_stored(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str], observation: Any, text: str
) -> None:
    assert topology
    answer = observe(stack, passwords, {**STATE, "resource": "new"}, observation)
    assert answer.status_code == 422
    assert text in answer.json()["message"]
    assert stack.sql("SELECT count(*) FROM ems.s2_status WHERE resource = 'new'") == [["0"]]


@pytest.mark.parametrize("factor", ["-0.01", "1.01", "'NaN'", "'Infinity'"])
def test_the_database_itself_refuses_a_factor_that_is_none(stack: Stack, factor: str) -> None:
    """Whoever writes to the table, and however."""
    with pytest.raises(AssertionError, match="s2_instruction_factor_check"):
        stack.sql(
            "INSERT INTO ems.s2_instruction (instruction_id, resource, execution_time, power_kw, factor, mode, reason,"
            " event_ids, status, changed_at)"
            " VALUES (gen_random_uuid(), 'x', now(), 0, FACTOR, 'charge', 'own', '{}', 'SENT', now())".replace(
                "FACTOR", factor
            )
        )
    assert stack.sql("SELECT count(*) FROM ems.s2_instruction WHERE resource = 'x'") == [["0"]]


def test_only_the_named_user_may_report(stack: Stack, topology: dict[str, Any], passwords: dict[str, str]) -> None:
    assert topology
    assert observe(stack, passwords, STATE, email=OPERATOR).status_code == 403
    for headers in ({}, {"Authorization": "wrong"}, {"Authorization": SECRETS["flexmeasures_topology_token"]}):
        answer = stack.request("POST", "/cariflex/v1/observations", json={"observations": []}, headers=headers)
        assert answer.status_code == 401, answer.text
    assert observe(stack, passwords, *[STATE] * 1001).status_code == 422


# --- the module ------------------------------------------------------------------------------------------------------


def play(stack: Stack, folder: Path, *options: str, **overrides: Any) -> tuple[int, dict[str, Any]]:
    """Run the module with ansible-playbook; returns its exit code and the task's result."""
    arguments = {
        "url": stack.url,
        "token": SECRETS["flexmeasures_topology_token"],
        "host_header": "server",
        "topology": "{{ topology_declared | combine(overrides, recursive=true) }}",
    }
    playbook = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars_files": [str(ROOT / "playbooks/vars/topology.yml")],
            "tasks": [{"flexmeasures_topology": arguments}],
        }
    ]
    folder.joinpath("play.yml").write_text(json.dumps(playbook))
    folder.joinpath("overrides.json").write_text(json.dumps({"overrides": overrides}))
    command = [
        *(sys.executable, "-m", "ansible", "playbook", "--inventory", "localhost,", "--extra-vars"),
        *(f"ansible_python_interpreter={sys.executable}", "--extra-vars", f"@{folder}/overrides.json"),
        *options,
        str(folder / "play.yml"),
    ]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "json",
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)
    result: dict[str, Any] = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return done.returncode, result


def test_the_module_checks_changes_and_then_changes_nothing(
    stack: Stack, topology: dict[str, Any], tmp_path: Path
) -> None:
    sensors = {"by_module": {"id": 306, "unit": "kW", "resolution": "PT5M", "asset": "Bat_01"}}
    for _ in range(2):
        code, checked = play(stack, tmp_path, "--check", "--diff", sensors=sensors)
        assert (code, checked["changed"]) == (0, True)
        assert stack.sql("SELECT id FROM sensor WHERE id = 306") == []
    code, made = play(stack, tmp_path, "--diff", sensors=sensors)
    assert (code, made["changed"], made["diff"]) == (0, True, checked["diff"])
    for options in ([], ["--check"]):
        code, again = play(stack, tmp_path, *options, sensors=sensors)
        assert (code, again["changed"], again["api_calls"]) == (0, False, 1)
    code, refused = play(stack, tmp_path, sensors={"by_module": {**sensors["by_module"], "id": 307}})
    assert code != 0
    assert "with the id 306" in refused["msg"]
    stack.sql("DELETE FROM sensor WHERE id = 306")


# --- health ----------------------------------------------------------------------------------------------------------


def test_all_is_well(stack: Stack) -> None:
    health = stack.health()
    assert health["code"] == 200
    assert health["checks"]["workers"]["live"] == {"forecasting": 1, "scheduling": 1}
    assert health["checks"]["queue"]["oldest_seconds"] is None
    check = ("exec", stack.container("worker"), "python", "-m", "cariflex.fm_plugin.worker_health")
    assert docker(*check) == ""


@pytest.mark.parametrize("service", ["redis", "database"])
def test_a_frozen_service_is_told_within_three_seconds(stack: Stack, service: str) -> None:
    docker("pause", stack.container(service))
    try:
        for _ in range(3):
            began = time.monotonic()
            health = stack.health(seconds=10)
            assert time.monotonic() - began < 3
            assert health["code"] == 503
            assert health["checks"][service]["problem"]
    finally:
        docker("unpause", stack.container(service))
    until(lambda: stack.health()["code"] == 200, 30, "all is well again")


@pytest.mark.parametrize("service", ["redis", "database"])
def test_an_absent_service_is_told_within_three_seconds(stack: Stack, service: str) -> None:
    docker("network", "disconnect", stack.prefix, stack.container(service))
    try:
        began = time.monotonic()
        health = stack.health(service, seconds=10)
        assert time.monotonic() - began < 3
        assert health["code"] == 503
        assert SECRETS["flexmeasures_db_password"] not in json.dumps(health)
        assert health["checks"][service]["problem"].startswith(("cannot be used", "no answer within"))
    finally:
        docker("network", "connect", "--alias", service, stack.prefix, stack.container(service))
    until(lambda: stack.health()["code"] == 200, 90, "all is well again")


def test_a_killed_worker_is_told_at_once(stack: Stack) -> None:
    docker("kill", stack.container("worker"))
    health = until(lambda: (told := stack.health())["code"] == 503 and told, 5, "the worker is missed")
    assert "start flexmeasures-worker" in health["checks"]["workers"]["problem"]
    docker("start", stack.container("worker"))
    until(lambda: stack.health()["code"] == 200, 60, "the worker is back")


def test_jobs_that_nobody_takes_are_told(stack: Stack, topology: dict[str, Any], passwords: dict[str, str]) -> None:
    docker("stop", stack.container("worker"))
    header = {"Authorization": token_of(stack, passwords[OPERATOR]).json()["auth_token"]}
    asset_id = stack.sql("SELECT id FROM generic_asset WHERE name = 'Bat_01'")[0][0]
    body = {
        "start": "2026-01-01T00:00:00+00:00",
        "duration": "PT1H",
        "flex-model": [{"sensor": 51, "soc-at-start": "10 kWh", "soc-max": "20 kWh", "power-capacity": "5 kW"}],
        "flex-context": {"consumption-price": "1 EUR/MWh", "site-power-capacity": "1 MW"},
    }
    asked = stack.request("POST", f"/api/v3_0/assets/{asset_id}/schedules/trigger", json=body, headers=header)
    health = stack.health("queue")
    docker("start", stack.container("worker"))
    assert asked.ok, asked.text
    assert health["checks"]["queue"]["queued"]["scheduling"] == 1
    assert health["checks"]["queue"]["oldest_seconds"] < 60
    until(lambda: stack.health("queue")["checks"]["queue"]["oldest_seconds"] is None, 60, "the job is taken")
    until(lambda: stack.health()["code"] == 200, 60, "the worker is back")


def test_plans_are_read_at_once_as_flexmeasures_gives_them_one_by_one(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    header = {"Authorization": token_of(stack, passwords[OPERATOR]).json()["auth_token"]}
    asset_id = stack.sql("SELECT id FROM generic_asset WHERE name = 'Cariflex'")[0][0]
    device = {"soc-at-start": "10 kWh", "soc-max": "20 kWh", "power-capacity": "5 kW"}
    full = {"start": "2026-01-01T02:00:00+00:00", "end": "2026-01-01T02:00:00+00:00", "value": "20 kWh"}
    body = {
        "start": "2026-01-01T00:00:00+00:00",
        "duration": "PT2H",
        "flex-model": [{"sensor": sensor, **device, "soc-minima": [full]} for sensor in (101, 102)],
        "flex-context": {"consumption-price": "1 EUR/MWh", "site-power-capacity": "1 MW"},
    }
    asked = stack.request("POST", f"/api/v3_0/assets/{asset_id}/schedules/trigger", json=body, headers=header)
    assert asked.ok, asked.text
    job = asked.json().get("job") or asked.json()["schedule"]

    def ours(path: str = f"{job}?sensors=101,102", **options: Any) -> requests.Response:
        return stack.request("GET", f"/cariflex/v1/schedules/{path}", **{"headers": header, **options})

    until(lambda: stack.request("GET", f"/api/v3_0/jobs/{job}", headers=header).status_code != 202, 90, "it is planned")
    answer = ours()
    assert answer.status_code == 200, answer.text
    for sensor in (101, 102):
        path = f"/api/v3_0/sensors/{sensor}/schedules/{job}"
        query = {"duration": "PT2H", "unit": "kW"}
        own = stack.request("GET", path, params=query, headers=header).json()
        read = answer.json()["schedules"][str(sensor)]
        assert sum(read["values"]) > 0
        assert (read["values"], read["unit"]) == (pytest.approx(own["values"]), "kW")
        assert datetime.fromisoformat(read["start"]) == datetime.fromisoformat(own["start"])
    assert ours(headers={}).status_code == 401
    assert ours("no-such-job?sensors=101").status_code == 422
    for wrong in ("", "sensors=", "sensors=a", "sensors=101,", "sensors=-1", "sensors=99999", "sensors=٣"):
        assert ours(f"{job}?{wrong}").status_code == 422, wrong


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_log_or_in_what_docker_shows(stack: Stack, passwords: dict[str, str]) -> None:
    containers = [stack.container(name) for name in ("server", "second", "worker")]
    shown = docker("inspect", *containers) + "".join(stack.logs(name) for name in ("server", "second", "worker"))
    for secret in (*SECRETS.values(), *passwords.values(), "another password"):
        assert secret not in shown


# --- taking values back ----------------------------------------------------------------------------------------------

VEN = "ven@cariflex.internal"
HOURS = [f"2027-01-01T{hour:02d}:00:00+00:00" for hour in range(5)]


def test_a_user_takes_back_what_he_stored_before_and_nothing_else(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    """What the VEN does with a cancelled price: FlexMeasures itself stores no empty value."""
    header = {
        email: {"Authorization": token_of(stack, passwords[email], email).json()["auth_token"]} for email in passwords
    }

    def store(email: str, start: str, values: list[float], prior: str) -> None:
        body = {"start": start, "duration": f"PT{len(values)}H", "values": values, "unit": "EUR/MWh", "prior": prior}
        answer = stack.request("POST", "/api/v3_0/sensors/84/data", json=body, headers=header[email])
        assert answer.status_code == 200, answer.text

    def withdraw(headers: dict[str, str], **different: Any) -> requests.Response:
        body = {"sensor": 84, "start": HOURS[1], "end": HOURS[3], "prior": "2026-06-01T00:00:10+00:00"} | different
        return stack.request("POST", "/cariflex/v1/withdraw", json=body, headers=headers)

    def stored() -> list[list[str]]:
        return stack.sql(
            "SELECT to_char(event_start AT TIME ZONE 'UTC', 'HH24'), event_value FROM timed_belief"
            " WHERE sensor_id = 84 ORDER BY event_start, event_value"
        )

    store(VEN, HOURS[0], [10.0, 11.0, 12.0, 13.0], "2026-06-01T00:00:00+00:00")
    store(VEN, HOURS[1], [21.0], "2026-06-01T00:00:05+00:00")
    store(VEN, HOURS[2], [22.0], "2026-06-01T00:00:11+00:00")
    store(OPERATOR, HOURS[1], [31.0], "2026-06-01T00:00:00+00:00")

    for headers in ({}, {"Authorization": "wrong"}):
        assert withdraw(headers).status_code == 401
    for wrong in ({"sensor": "84"}, {"end": HOURS[1]}, {"prior": "2026-06-01"}, {"more": 1}):
        answer = withdraw(header[VEN], **wrong)
        assert (answer.status_code, bool(answer.json()["message"])) == (422, True), wrong
    assert withdraw(header[VEN], sensor=99999).status_code == 404
    assert len(stored()) == 7

    assert withdraw(header[VEN]).json() == {"withdrawn": 3}
    assert stored() == [["00", "10"], ["01", "31"], ["02", "22"], ["03", "13"]]
    assert withdraw(header[VEN]).json() == {"withdrawn": 0}, "a request that comes twice does nothing"
    audited = stack.sql("SELECT event FROM asset_audit_log ORDER BY id DESC LIMIT 1")
    assert audited[0][0].startswith(f"Taken back by {VEN}: 3 values")
    stack.sql("DELETE FROM timed_belief WHERE sensor_id = 84")


# --- values of others ------------------------------------------------------------------------------------------------


def test_values_keep_the_source_that_is_named(
    stack: Stack, topology: dict[str, Any], passwords: dict[str, str]
) -> None:
    """What the feeds do: what Open-Meteo says is not the VEN's, and what is simulated is nobody's measurement."""
    token = {"Authorization": token_of(stack, passwords[VEN], VEN).json()["auth_token"]}

    def store(headers: dict[str, str], **different: Any) -> requests.Response:
        body = {
            "sensor": 81,
            "start": HOURS[0],
            "values": [1.0, 2.0],
            "unit": "W/m²",
            "prior": "2026-06-01T00:00:00+00:00",
            "source": "Open-Meteo",
        }
        return stack.request("POST", "/cariflex/v1/values", json=body | different, headers=headers)

    def stored() -> list[list[str]]:
        return stack.sql(
            "SELECT to_char(event_start AT TIME ZONE 'UTC', 'HH24'), event_value, name, type FROM timed_belief"
            " JOIN data_source ON data_source.id = source_id WHERE sensor_id = 81 ORDER BY 1, belief_horizon DESC"
        )

    assert store({}).status_code == 401
    refused: list[dict[str, Any]] = [
        {"sensor": "81"},
        {"values": []},
        {"values": ["1"]},
        {"unit": "kW"},
        {"prior": "2026-06-01"},
        {"source": " "},
        {"start": "2027-01-01T00:30:00+00:00"},
        {"more": 1},
    ]
    for wrong in refused:
        answer = store(token, **wrong)
        assert (answer.status_code, bool(answer.json()["message"])) == (422, True), wrong
    assert store(token, sensor=99999).status_code == 404
    assert stored() == []

    for _ in range(2):  # a post that comes twice is stored once
        assert store(token).status_code == 200
    assert store(token, values=[3.0], prior="2027-01-01T01:00:00+00:00").status_code == 200
    assert stored() == [
        ["00", "1", "Open-Meteo", "forecaster"],
        ["00", "3", "Open-Meteo", "feed"],
        ["01", "2", "Open-Meteo", "forecaster"],
    ]
    answer = store(token, values=[4.0], prior="2027-01-01T01:00:00+00:00")
    assert (answer.status_code, "INVALID_REPLACEMENT" in answer.text) == (403, True)

    for _ in range(2):
        assert store(token, prior=None, source="simulator").status_code == 200
    known = stack.sql(
        "SELECT event_value, type, belief_horizon = interval '0' FROM timed_belief"
        " JOIN data_source ON data_source.id = source_id WHERE name = 'simulator' ORDER BY event_start"
    )
    assert known == [["1", "feed", "t"], ["2", "feed", "t"]], "each at the end of its hour"
    stack.sql("DELETE FROM timed_belief WHERE sensor_id = 81")
