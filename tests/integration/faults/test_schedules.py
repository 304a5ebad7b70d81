"""The loop end to end: prices and limits of events become a plan, and the devices follow it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.grafana.conftest import expand
from tests.support.ems import VEN, Ems, until
from tests.support.host import docker
from tests.support.stacks import ROOT, SECRETS

pytestmark = [pytest.mark.docker, pytest.mark.slow]

BATTERIES = tuple(f"battery_0{number}" for number in range(1, 6))
EVS = tuple(f"ev_0{number}" for number in range(1, 6))
PRODUCTION_PRICE = 85
PLAN_SECONDS = 240.0  # the longest wait; a solver beside other tests takes up to a minute


def this_hour() -> datetime:
    """Its beginning."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def production_prices(ems: Ems, values: list[float]) -> None:
    """What the feed of the tariff does: a price for each hour from this one on."""
    server = ("flexmeasures-server", 5000)
    user = {"email": "ven@cariflex.internal", "password": SECRETS["vault_flexmeasures_ven_password"]}
    token = ems.ask("POST", *server, "/api/requestAuthToken", json=user).json()["auth_token"]
    answer = ems.ask(
        *("POST", *server, f"/api/v3_0/sensors/{PRODUCTION_PRICE}/data"),
        json={"start": this_hour().isoformat(), "duration": f"PT{len(values)}H", "values": values, "unit": "EUR/MWh"},
        headers={"Authorization": token},
        timeout=30,
    )
    assert answer.ok, answer.text


def order(ems: Ems, event_id: str, signal: str, unit: str, start: datetime, values: list[float], step: str) -> None:
    """Create or change an event."""
    intervals = [{"duration": step, "value": value} for value in values]
    body = {"signal_name": signal, "unit": unit, "start": start.isoformat(), "intervals": intervals, "targets": [VEN]}
    answer = ems.vtn("PUT", f"events/{event_id}", body)
    assert answer.ok, answer.text


def powers(ems: Ems) -> dict[str, tuple[float | None, float | None]]:
    """By device: what the CEM sees, and what the device does."""
    seen = ems.health("openadr-ven", 8765)["devices"]
    real = ems.health("openadr-simulator", 8080)["devices"]
    return {name: (seen[name]["power_kw"], real[name]["power_kw"]) for name in seen}


def planned(ems: Ems, device: str) -> float | None:
    """What FlexMeasures' scheduler said last of a device for the present quarter of an hour, in kW."""
    rows = ems.sql(
        "SELECT event_value FROM timed_belief JOIN data_source ON source_id = data_source.id "
        "JOIN sensor ON sensor_id = sensor.id WHERE data_source.type = 'scheduler' AND sensor.name = 'DEVICE_power_kw' "
        "AND event_start = date_bin('15 minutes', now(), 'epoch') ORDER BY belief_horizon LIMIT 1".replace(
            "DEVICE", device
        )
    )
    return float(rows[0][0]) if rows else None


def follow(ems: Ems, what: str, devices: tuple[str, ...], low: float, high: float) -> None:
    """Wait until the devices do what is expected, in kW; says what they do if they do not."""
    last: dict[str, Any] = {}

    def done() -> bool:
        last.update(powers(ems))
        return all(power is not None and low <= power <= high for name in devices for power in last[name])

    try:
        until(done, PLAN_SECONDS, what)
    except AssertionError as error:
        lines = [line for line in ems.log("openadr-ven") if line["service"] == "planner"][-5:]
        raise AssertionError(f"{error}: they do {last}; the planner says {lines}") from None


def cancel_all(ems: Ems) -> None:
    """Other tests' events would limit the devices, or have prices of their own."""
    for event in ems.vtn("GET", "events?limit=1000").json()["events"]:
        if event["status"] in ("far", "active"):
            assert ems.vtn("DELETE", f"events/{event['event_id']}").ok


def test_a_high_price_empties_the_batteries_and_load_control_caps_charging(ems: Ems) -> None:
    cancel_all(ems)
    # this hour is the dearest, and 50 kWh are not enough for all of it: one quarter may be less than full
    dear, cheap = [500.0, 400.0, *[50.0] * 24], [10.0, 20.0, *[500.0] * 24]
    production_prices(ems, [0.8 * price for price in dear])
    order(ems, "loop-price", "ENERGY_PRICE", "EUR/MWh", this_hour(), dear, "PT1H")
    follow(ems, "the batteries give", BATTERIES, -50.1, -39.0)
    assert planned(ems, "battery_01") == pytest.approx(powers(ems)["battery_01"][1], abs=0.1)
    runs = until(
        lambda: ems.sql(
            "SELECT devices, horizon_start <= now(), cost_eur < baseline_cost_eur FROM ems.schedule_run "
            "WHERE status = 'ok' AND trigger LIKE '%prices%'"
        ),
        30,
        "the run is in ems",
    )
    assert runs[0] == ["10", "t", "t"]

    production_prices(ems, [0.8 * price for price in cheap])
    order(ems, "loop-price", "ENERGY_PRICE", "EUR/MWh", this_hour(), cheap, "PT1H")
    follow(ems, "the batteries charge", BATTERIES, 25.0, 50.1)

    quarter = datetime.now(UTC).replace(second=0, microsecond=0)
    quarter -= timedelta(minutes=quarter.minute % 15)
    order(ems, "loop-limit", "LOAD_CONTROL", "%", quarter, [20.0] * 4, "PT15M")
    follow(ems, "the batteries charge no faster than allowed", BATTERIES, 5.0, 10.01)
    follow(ems, "the EVs charge no faster than allowed", EVS, -22.0, 4.41)
    kept = until(
        lambda: ems.sql(
            "SELECT max(power_kw), max(limit_kw) FROM ems.s2_instruction WHERE resource = 'battery_01' "
            "AND reason = 'plan' AND 'loop-limit:Cariflex-VEN-001' = ANY (event_ids) HAVING count(*) > 0"
        ),
        30,
        "the instruction is in ems",
    )
    assert [float(value) for value in kept[0]] == pytest.approx([10.0, 10.0], abs=0.01)

    def limited() -> bool:
        power = planned(ems, "battery_01")
        return power is not None and power <= 10.01

    until(limited, PLAN_SECONDS, "FlexMeasures' plan is under the limit")


# What the feeds bring and what a program on the host samples; neither runs here. Weather and PV have their own tests.
ELSEWHERE = {"PV production", "Grid net power", "Weather", "Container health"}


def as_grafana(ems: Ems, sql: str) -> int:
    """How many rows the dashboard's role gets over the network, as Grafana does."""
    login = "PGPASSWORD=$(cat /run/secrets/grafana_ro_password) exec psql -X -q -h 127.0.0.1 -U grafana_ro flexmeasures"
    container = ems.container("flexmeasures-db")
    counted = f"SELECT count(*) FROM ({sql}) AS shown"  # noqa: S608  a query of ours
    return int(docker("exec", "--interactive", container, "sh", "-c", f"{login} -At", stdin=counted))


def test_every_panel_shows_what_has_happened(ems: Ems) -> None:
    """The queries of the dashboard, on the database that our services have just filled by themselves."""
    quarter = datetime.now(UTC).replace(second=0, microsecond=0)
    quarter -= timedelta(minutes=quarter.minute % 15)
    order(ems, "loop-level", "SIMPLE", "dimensionless", quarter, [1.0] * 4, "PT15M")
    psql = ("exec", ems.container("flexmeasures-db"), "psql", "-X", "-q", "--set=preview=0", "--username=postgres")
    docker(*psql, "--set=ON_ERROR_STOP=1", "--file=/etc/cariflex/grants.sql")
    dashboard = json.loads((ROOT / "files/grafana/dashboards/cariflex.json").read_text(encoding="utf-8"))
    empty: set[str] = set()

    def shown() -> bool:
        now = datetime.now(UTC)
        empty.clear()
        for panel in dashboard["panels"]:
            shortest = timedelta(minutes=int(panel.get("interval", "1m").removesuffix("m")))
            sql = expand(panel["targets"][0]["rawSql"], now - timedelta(days=1), now + timedelta(days=1), shortest)
            if as_grafana(ems, sql) == 0:
                empty.add(panel["title"])
        return empty <= ELSEWHERE

    try:
        until(shown, 60, "every panel has rows")
    except AssertionError as error:
        raise AssertionError(f"{error}: none in {sorted(empty - ELSEWHERE)}") from None
