"""Every panel's query, run as grafana_ro on a real database, and what that role must not reach."""

import json
from collections.abc import Callable
from datetime import timedelta
from numbers import Real
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).parents[3]
PANELS = {
    panel["id"]: panel
    for panel in json.loads((ROOT / "files/grafana/dashboards/cariflex.json").read_text(encoding="utf-8"))["panels"]
}
SERIES = [panel for panel in PANELS.values() if panel["targets"][0]["format"] == "time_series"]
NET, PRICES, LOAD_CONTROL, DEMAND_RESPONSE, PLAN, EVENTS, INSTRUCTIONS, TASKS, FRESHNESS, HEALTH = (
    4,
    5,
    6,
    7,
    *range(9, 15),
)

pytestmark = pytest.mark.docker
Connection = psycopg.Connection[tuple[Any, ...]]
Ask = Callable[..., Any]


def title(panel: dict[str, Any]) -> str:
    """The panel's name in test reports."""
    return str(panel["title"])


@pytest.mark.parametrize("panel", SERIES, ids=title)
def test_series_are_numbers_in_order_of_time(panel: dict[str, Any], ask: Ask, grafana_ro: Connection) -> None:
    answer = ask(grafana_ro, panel)

    assert answer.columns == ["time", "metric", "value"]
    assert len(answer.rows) > 0
    times = [row[0] for row in answer.rows]
    assert times == sorted(times)
    assert all(isinstance(row[1], str) and isinstance(row[2], Real) for row in answer.rows)


@pytest.mark.parametrize(
    ("id_", "expected"),
    [
        (1, {f"PV_{n:02}": 40 + n for n in range(1, 11)}),
        (2, {f"Bat_{n:02}": 50 + n for n in range(1, 11)}),
        (3, {f"EV_{n:02}": 60 + n for n in range(1, 11)}),
        (PRICES, {"consumption price": 84, "production price": 85}),
        (8, {"irradiance": 81, "temperature": 82, "wind speed": 83}),
    ],
)
def test_latest_measured_belief_is_shown_whatever_was_forecast_or_scheduled(
    id_: int, expected: dict[str, float], ask: Ask, grafana_ro: Connection
) -> None:
    rows = ask(grafana_ro, PANELS[id_]).rows
    assert {(metric, value) for _, metric, value in rows} == set(expected.items())
    assert len({(time, metric) for time, metric, _ in rows}) == len(rows)


@pytest.mark.parametrize(("id_", "shown"), [(LOAD_CONTROL, 0), (DEMAND_RESPONSE, 3)])
def test_signals_keep_their_strictest_value_when_zoomed_out(
    id_: int, shown: float, ask: Ask, grafana_ro: Connection
) -> None:
    assert {value for *_, value in ask(grafana_ro, PANELS[id_]).rows} == {0, 1, 2, 3}
    # the hour that is under way may lack its last quarters
    zoomed = [value for *_, value in ask(grafana_ro, PANELS[id_], interval=timedelta(hours=1)).rows][1:-1]
    assert set(zoomed) == {shown}


def test_net_power_is_what_devices_take_less_what_pv_brings(ask: Ask, grafana_ro: Connection) -> None:
    values = {value for *_, value in ask(grafana_ro, PANELS[NET]).rows}
    assert values == {111 + 10 + 20 - sum(range(41, 51))}
    hours = ask(grafana_ro, PANELS[NET], interval=timedelta(hours=1)).rows
    assert {value for *_, value in hours} == values, "means, not sums over the time shown"


def test_net_power_is_not_guessed_where_a_side_is_missing(ask: Ask, superuser: Connection) -> None:
    superuser.execute("DELETE FROM ems.s2_status")
    assert ask(superuser, PANELS[NET]).rows == []


def test_the_newest_plan_lies_beside_what_devices_took(ask: Ask, superuser: Connection) -> None:
    def values(name: str) -> set[float]:
        return {value for _, metric, value in ask(superuser, PANELS[PLAN]).rows if metric == name}

    superuser.execute("DELETE FROM timed_belief WHERE source_id = 3 AND sensor_id NOT IN (41, 101, 102)")
    assert values("actual") == {30}
    assert values("planned") == {6000 + 101 + 102}, "41 takes no plans"
    superuser.execute(
        """INSERT INTO timed_belief SELECT event_start, '-2 hours', 0.5, 7, sensor_id, 3
           FROM timed_belief WHERE source_id = 3 AND sensor_id = 101"""
    )
    assert values("planned") == {3102 + 7}


def rows(ask: Ask, connection: Connection, id_: int) -> list[dict[str, Any]]:
    """What a table shows, by column."""
    answer = ask(connection, PANELS[id_])
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def test_an_event_is_shown_with_the_answer_that_holds(ask: Ask, grafana_ro: Connection) -> None:
    (event,) = rows(ask, grafana_ro, EVENTS)
    assert (event["Event"], event["Signal"], event["Opt"]) == ("cap-1", "LOAD_CONTROL", "optOut")
    assert event["Reason"] == "maintenance"


def test_instructions_are_listed_with_the_newest_first(ask: Ask, grafana_ro: Connection) -> None:
    listed = rows(ask, grafana_ro, INSTRUCTIONS)
    assert 23 <= len(listed) <= 24
    assert [one["Time"] for one in listed] == sorted((one["Time"] for one in listed), reverse=True)
    assert (listed[0]["Events"], listed[0]["Accepted after"]) == ("cap-1, cap-2", 2)


def test_tasks_are_queues_schedules_backups_and_drills(ask: Ask, grafana_ro: Connection) -> None:
    assert [(one["Task"], one["Status"]) for one in rows(ask, grafana_ro, TASKS)] == [
        ("queue scheduling", "ok"),
        ("schedule", "ok"),
        ("backup full", "ok"),
        ("restore drill", "ok"),
    ]


def test_a_schedule_shows_what_it_saves(ask: Ask, grafana_ro: Connection) -> None:
    listed = {one["Task"]: one for one in rows(ask, grafana_ro, TASKS)}
    saves = ("Saves", "Saves energy", "Saves peak")
    assert [listed["schedule"][name] for name in saves] == [2, -5, 60], "of money, energy and the peak"
    assert [listed["backup full"][name] for name in saves] == [None] * 3


def test_the_last_sample_of_everything_is_shown(ask: Ask, superuser: Connection) -> None:
    superuser.execute(
        """INSERT INTO ems.health_sample (time, kind, name, status)
           VALUES (now() + interval '1 second', 'container', 'openadr-vtn', 'unhealthy')"""
    )
    superuser.execute("SET LOCAL ROLE grafana_ro")
    shown = {one["Name"]: one for one in rows(ask, superuser, HEALTH) if one["Kind"] != "certificate"}
    assert set(shown) == {"openadr-vtn", "openadr-ven", "flexmeasures-worker", "host"}
    assert shown["openadr-vtn"]["Status"] == "unhealthy"
    assert shown["openadr-ven"]["Of its limit"] == 0.25


def test_a_gap_is_not_filled(ask: Ask, superuser: Connection) -> None:
    before = {time for time, *_ in ask(superuser, PANELS[LOAD_CONTROL]).rows}
    superuser.execute(
        """DELETE FROM timed_belief WHERE sensor_id = 86
           AND event_start BETWEEN now() - interval '10 hours' AND now() - interval '5 hours'"""
    )
    after = {time for time, *_ in ask(superuser, PANELS[LOAD_CONTROL]).rows}
    assert 20 <= len(before - after) <= 21


def test_freshness_lists_the_worst_first(ask: Ask, superuser: Connection) -> None:
    superuser.execute("DELETE FROM timed_belief WHERE sensor_id = 70 AND source_id = 1")
    superuser.execute("DELETE FROM timed_belief WHERE sensor_id = 41 AND event_start > now() - interval '20 minutes'")
    superuser.execute("SET LOCAL ROLE grafana_ro")

    answer = ask(superuser, PANELS[FRESHNESS])

    assert answer.columns == ["Sensor", "Last value from", "Value", "Unit", "Intervals missing"]
    assert len(answer.rows) == 37
    never, *others = [(row[0], row[2], row[3], row[4]) for row in answer.rows]
    assert never == ("ev_10_power", None, "kWh", None)
    assert others[:2] in (
        # price: hourly, up to five hours ago; PV: every five minutes, up to twenty minutes ago
        [("production_price", 85, "EUR/MWh", missing), ("pv_01_power", 41, "kW", 3)]
        for missing in (4, 5)
    )
    assert {row[3] for row in others[2:]} == {0}


def test_freshness_tells_since_when_there_is_no_plan(ask: Ask, superuser: Connection) -> None:
    def plans() -> tuple[Any, ...]:
        (row,) = (row for row in ask(superuser, PANELS[FRESHNESS]).rows if row[0] == "plans")
        return tuple(row[2:])

    assert plans() == (10, "devices", 0)
    superuser.execute("DELETE FROM timed_belief WHERE source_id = 3 AND sensor_id = 110")  # a vehicle that is away
    assert plans() == (9, "devices", 0)
    superuser.execute("DELETE FROM timed_belief WHERE source_id = 3 AND event_start > now() - interval '2 hours'")
    assert plans() in ((9, "devices", 7), (9, "devices", 8))
    superuser.execute("DELETE FROM timed_belief WHERE source_id = 3")
    assert plans() == (0, "devices", None)


def test_freshness_ignores_prices_of_tomorrow(ask: Ask, superuser: Connection) -> None:
    superuser.execute("INSERT INTO timed_belief VALUES (now() + interval '9 hours', '0', 0.5, 7, 85, 1)")
    rows = {row[0]: row for row in ask(superuser, PANELS[FRESHNESS]).rows}
    assert rows["production_price"][2] == 85
    assert rows["production_price"][4] > 0


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("timed_belief", "event_start"),
        ("timed_belief", "belief_horizon"),
        ("timed_belief", "cumulative_probability"),
        ("timed_belief", "event_value"),
        ("timed_belief", "sensor_id"),
        ("timed_belief", "source_id"),
        ("sensor", "event_resolution"),
        ("sensor", "unit"),
        ("sensor", "generic_asset_id"),
        ("data_source", "type"),
        ("generic_asset", "name"),
        ("ems.s2_status", "power_kw"),
        ("ems.s2_instruction", "event_ids"),
        ("ems.openadr_event", "signal"),
        ("ems.openadr_opt", "reason"),
        ("ems.schedule_run", "trigger"),
        ("ems.schedule_run", "baseline_peak_kw"),
        ("ems.health_sample", "waiting"),
        ("ems.health_sample", "memory_limit_bytes"),
        ("ems.backup_run", "archive"),
        ("ems.drill_run", "started_at"),
    ],
)
def test_a_column_that_FlexMeasures_drops_is_noticed(  # noqa: N802 - its name
    table: str, column: str, ask: Ask, superuser: Connection
) -> None:
    superuser.execute(f"ALTER TABLE {table} DROP COLUMN {column} CASCADE".encode())
    superuser.execute("SET LOCAL ROLE grafana_ro")

    def is_broken(panel: dict[str, Any]) -> bool:
        try:
            with superuser.transaction():
                ask(superuser, panel)
        except psycopg.errors.UndefinedColumn:
            return True
        return False

    assert any(is_broken(panel) for panel in PANELS.values())


@pytest.mark.parametrize(
    ("what", "table"),
    [
        ("event_start", "timed_belief"),
        ("belief_horizon", "timed_belief"),
        ("cumulative_probability", "timed_belief"),
        ("event_value", "timed_belief"),
        ("sensor_id", "timed_belief"),
        ("source_id", "timed_belief"),
        ("name", "sensor"),
        ("unit", "sensor"),
        ("event_resolution", "sensor"),
        ("generic_asset_id", "sensor"),
        ("type", "data_source"),
        ("name", "generic_asset"),
        (None, "ems.s2_status"),
        (None, "ems.s2_instruction"),
        (None, "ems.openadr_event"),
        (None, "ems.openadr_opt"),
        (None, "ems.schedule_run"),
        (None, "ems.health_sample"),
        (None, "ems.backup_run"),
        (None, "ems.drill_run"),
    ],
)
def test_a_grant_that_is_missing_is_noticed(what: str | None, table: str, ask: Ask, superuser: Connection) -> None:
    columns = f" ({what})" if what else ""
    superuser.execute(f"REVOKE SELECT{columns} ON {table} FROM grafana_ro".encode())
    superuser.execute("SET LOCAL ROLE grafana_ro")

    def is_refused(panel: dict[str, Any]) -> bool:
        try:
            with superuser.transaction():
                ask(superuser, panel)
        except psycopg.errors.InsufficientPrivilege:
            return True
        return False

    assert any(is_refused(panel) for panel in PANELS.values())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT email FROM fm_user",
        "SELECT password FROM fm_user",
        "SELECT secrets FROM account",
        "SELECT user_id FROM data_source",
        "SELECT latitude FROM generic_asset",
        "SELECT * FROM audit_log",
        "UPDATE timed_belief SET event_value = 0",
        "DELETE FROM sensor",
        "DELETE FROM ems.openadr_event",
        "INSERT INTO ems.drill_run (id, started_at, status) VALUES (gen_random_uuid(), now(), 'ok')",
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
    ],
)
def test_grafana_ro_reaches_nothing_else(statement: str, grafana_ro: Connection) -> None:
    grafana_ro.execute("SET default_transaction_read_only = off")  # a session may; the grants still refuse
    grafana_ro.commit()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        grafana_ro.execute(statement.encode())


def test_grafana_ro_cannot_enter_the_database_of_the_vtn(server: Any) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        server.connect("grafana_ro", "openadr")


def test_a_query_of_grafana_is_cut_off(grafana_ro: Connection) -> None:
    (shown,) = grafana_ro.execute("SHOW statement_timeout").fetchone() or ()
    assert shown == "30s"


@pytest.mark.parametrize("script", ["provision.sql", "grants.sql"])
def test_provisioning_again_changes_nothing(script: str, server: Any) -> None:
    assert server.provision(script) == ""


def test_a_missing_secret_stops_provisioning_and_locks_nobody_out(server: Any) -> None:
    secret = server.secrets / "grafana_ro_password"
    secret.rename(secret.with_suffix(".away"))
    try:
        with pytest.raises(AssertionError, match="grafana_ro_password cannot be read"):
            server.provision("provision.sql")
    finally:
        secret.with_suffix(".away").rename(secret)
    server.connect("grafana_ro").close()
