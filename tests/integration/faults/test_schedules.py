"""The loop end to end: prices and limits of events become a plan, and the devices follow it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.ems import VEN, Ems, until
from tests.support.host import docker
from tests.support.panels import PSQL, without_rows
from tests.support.stacks import SECRETS

pytestmark = [pytest.mark.docker, pytest.mark.slow]

BATTERIES = tuple(f"battery_0{number}" for number in range(1, 6))
EVS = tuple(f"ev_0{number}" for number in range(1, 6))
PRODUCTION_PRICE = 85
PV, LOAD = 41, 111
PLAN_SECONDS = 240.0  # the longest wait; a solver beside other tests takes up to a minute
FORECAST_SECONDS = 600.0  # sensors are looked at in turn, ten seconds apart; the job is like a plan's


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
    start = datetime.now(UTC).timestamp() // 900 * 900
    return plan(ems, device).get(start)


def plan(ems: Ems, device: str) -> dict[float, float]:
    """FlexMeasures' newest plan of a device from the present quarter of an hour on: start -> kW."""
    rows = ems.sql(
        "SELECT DISTINCT ON (event_start) extract(epoch FROM event_start), event_value FROM timed_belief"
        " JOIN data_source ON source_id = data_source.id JOIN sensor ON sensor_id = sensor.id"
        " WHERE data_source.type = 'scheduler' AND sensor.name = 'DEVICE_power_kw'"
        " AND event_start >= date_bin('15 minutes', now(), 'epoch') ORDER BY event_start, belief_horizon".replace(
            "DEVICE", device
        )
    )
    return {float(start): float(value) for start, value in rows}


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


def observed(ems: Ems, told: str, done: str) -> set[str] | None:
    """Batteries of which `ems` has both an instruction and a status in the last minutes; None until all have.

    Args:
        ems: the system.
        told: a condition on `ems.s2_instruction`.
        done: a condition on `ems.s2_status`.
    """
    rows = ems.sql(
        f"SELECT resource FROM ems.s2_instruction WHERE {told} AND sent_at > now() - interval '10 minutes'"  # noqa: S608  of this file
        f" INTERSECT SELECT resource FROM ems.s2_status WHERE {done} AND time > now() - interval '10 minutes'"
    )
    found = {row[0] for row in rows} & set(BATTERIES)
    return found if len(found) == len(BATTERIES) else None


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
    dear_until = (this_hour() + timedelta(hours=2)).timestamp()
    for battery in BATTERIES:
        assert planned(ems, battery) == pytest.approx(powers(ems)[battery][1], abs=0.1)
        quarters = plan(ems, battery)
        given = sum(power for start, power in quarters.items() if start < dear_until) / 4
        later = sum(min(power, 0.0) for start, power in quarters.items() if start >= dear_until) / 4
        assert given < 20 * later - 5, f"kWh: {battery} gives in the dear hours, {given}, and hardly later, {later}"
    seen = until(lambda: observed(ems, "reason = 'plan' AND power_kw < -39", "power_kw < -39"), 30, "ems knows")
    assert seen == set(BATTERIES)
    runs = until(
        lambda: ems.sql(
            "SELECT devices, horizon_start <= now(), cost_eur < baseline_cost_eur,"
            " baseline_energy_kwh - energy_kwh IS NOT NULL, baseline_peak_kw - peak_kw IS NOT NULL"
            " FROM ems.schedule_run WHERE status = 'ok' AND trigger LIKE '%prices%'"
        ),
        30,
        "the run is in ems",
    )
    assert runs[0] == ["10", "t", "t", "t", "t"], "what it saves in money, energy and at the peak"
    assert ems.health("openadr-ven", 8090)["plan"]["saved"].keys() == {"eur", "kwh", "peak_kw"}

    # selling pays more than buying costs, as under a fixed tariff: a plan that took that for gold would have no end
    production_prices(ems, [1.25 * price for price in cheap])
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

    capped = until(
        lambda: observed(ems, "limit_kw < 10.01 AND power_kw > 5", "power_kw BETWEEN 5 AND 10.01"), 30, "ems knows"
    )
    assert capped == set(BATTERIES)

    def limited() -> bool:
        caps = {**dict.fromkeys(BATTERIES, 10.01), **dict.fromkeys(EVS, 4.41)}
        found = {device: planned(ems, device) for device in caps}
        return all(power is not None and power <= caps[device] for device, power in found.items())

    until(limited, PLAN_SECONDS, "FlexMeasures' plans are under the limit")


# What the feeds bring, and what a program on the host samples: neither runs beside these containers.
ELSEWHERE = {
    "PV production": "PV is simulated by the feeds",
    "Grid net power": "it needs PV",
    "Weather": "the feeds bring it",
    "Container health": "it is sampled on the host, by systemd",
}


def test_every_panel_shows_what_has_happened(ems: Ems) -> None:
    """The queries of the dashboard, on the database that our services have just filled by themselves."""
    quarter = datetime.now(UTC).replace(second=0, microsecond=0)
    quarter -= timedelta(minutes=quarter.minute % 15)
    order(ems, "loop-level", "SIMPLE", "dimensionless", quarter, [1.0] * 4, "PT15M")
    container = ems.container("flexmeasures-db")
    psql = ("exec", container, "psql", "-X", "-q", "--set=preview=0", "--username=postgres")
    docker(*psql, "--set=ON_ERROR_STOP=1", "--file=/etc/cariflex/grants.sql")
    empty: set[str] = set()

    def shown() -> bool:
        empty.clear()
        empty.update(without_rows(lambda sql: docker("exec", "--interactive", container, "sh", "-c", PSQL, stdin=sql)))
        return empty <= ELSEWHERE.keys()

    try:
        until(shown, 400, "every panel has rows")  # energies come with the second cell of five minutes
    except AssertionError as error:
        raise AssertionError(f"{error}: none in {sorted(empty - ELSEWHERE.keys())}") from None


def test_what_nobody_controls_is_forecast_from_the_history_there_is(ems: Ems) -> None:
    """Three days of sun and of load, where a week is asked for."""
    ems.sql(
        "WITH source AS (INSERT INTO data_source (name, type) VALUES ('meter', 'user') RETURNING id)"
        " INSERT INTO timed_belief"
        " (event_start, belief_horizon, cumulative_probability, event_value, sensor_id, source_id)"
        " SELECT start, '0', 0.5,"
        " greatest(0, 40 * sin(extract(epoch FROM start) * 2 * pi() / 86400)), taker.id, source.id"
        " FROM source, (SELECT id FROM sensor WHERE name IN ('pv_01_power', 'site_load_power')) AS taker,"
        " generate_series(date_trunc('hour', now()) - interval '3 days', now() - interval '5 minutes',"
        " interval '5 minutes') AS start"
    )
    for sensor in (PV, LOAD):

        def made(sensor: int = sensor) -> bool:
            return bool(ems.health("openadr-ven", 8090)["forecasts"][str(sensor)] == "made")

        try:
            until(made, FORECAST_SECONDS, f"a forecast of {sensor} is made")
        except AssertionError as error:
            raise AssertionError(f"{error}: {ems.health('openadr-ven', 8090)['forecasts'][str(sensor)]}") from None
    foreseen = ems.sql(
        "SELECT sensor_id, count(DISTINCT event_start) >= 24, max(event_value) > 20, min(event_value) > -10"
        " FROM timed_belief JOIN data_source ON source_id = data_source.id"
        " WHERE data_source.type = 'forecaster' AND event_start > now() GROUP BY 1 ORDER BY 1"
    )
    assert foreseen == [[str(PV), "t", "t", "t"], [str(LOAD), "t", "t", "t"]]
