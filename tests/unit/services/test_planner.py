"""When the planner plans, and what it does with what FlexMeasures answers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from cariflex.planner import planner as module
from cariflex.planner.agenda import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_SECONDS,
    QUIET_SECONDS,
    Agenda,
    Pace,
)
from cariflex.planner.flexmeasures import AwayError, FlexMeasuresError
from cariflex.planner.flexmeasures import FlexMeasures as FlexMeasuresClient
from cariflex.planner.forecasts import BETWEEN_SECONDS, Forecasts
from cariflex.planner.model import moment
from cariflex.planner.planner import Planner
from cariflex.planner.settings import PlannerSettings
from cariflex.service import listen
from cariflex.ven.grid import Stretch
from cariflex.ven.observations import Observations
from cariflex.ven.outbox import Destination, Flexibility, Outbox, ReceivedEvent
from cariflex.ven.plans import Plans
from tests.unit.services.openadr_support import eventually, free_port
from tests.unit.services.s2_support import running_cem, simulated

NOW = 1_800_000_000 // 3600 * 3600 + 100
CELL = NOW // 900 * 900
PRICE = Destination(84, "EUR/MWh", 3600)
BATTERY = Flexibility(-50.0, 50.0, 0.0, 100.0, 60.0)


# --- when ------------------------------------------------------------------------------------------------------------


def test_it_plans_at_the_start_and_then_on_its_rhythm() -> None:
    agenda = Agenda(900)
    assert agenda.due(NOW)
    assert agenda.begin(NOW) == ["start"]
    agenda.done()
    assert not agenda.due(CELL + 899)
    assert agenda.due(CELL + 900)
    assert agenda.begin(CELL + 900) == ["rhythm"]
    assert not agenda.due(CELL + 901)


def test_events_that_come_together_bring_one_plan_soon() -> None:
    agenda = Agenda(900)
    agenda.begin(NOW)
    for step in range(8):
        agenda.notice("prices" if step % 2 else "limits", NOW + step * 0.3)
        assert not agenda.due(NOW + step * 0.3)
    last = NOW + 7 * 0.3
    assert not agenda.due(last + QUIET_SECONDS - 0.01)
    assert agenda.due(last + QUIET_SECONDS)
    assert agenda.begin(last + QUIET_SECONDS) == ["limits", "prices"]
    assert not agenda.due(last + 10)


def test_changes_without_end_do_not_put_a_plan_off_for_ever() -> None:
    agenda = Agenda(900)
    agenda.begin(NOW)
    now = float(NOW)
    while not agenda.due(now):
        agenda.notice("limits", now := now + 0.5)
    assert now <= NOW + LONGEST_SECONDS + 0.5


def test_what_changes_while_a_plan_is_made_brings_another() -> None:
    agenda = Agenda(900)
    agenda.begin(NOW)
    agenda.notice("prices", NOW + 2)
    agenda.done()
    assert agenda.due(NOW + 2 + QUIET_SECONDS)


def test_a_failure_is_tried_again_ever_later_and_forgets_no_cause() -> None:
    agenda, pauses, now = Agenda(900), [], float(NOW)
    for _ in range(9):
        causes = agenda.begin(now)
        assert "start" in causes
        pauses.append(agenda.failed(causes, now))
        assert not agenda.due(now + pauses[-1] - 0.1)
        now += pauses[-1]
        assert agenda.due(now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    agenda.begin(now)
    agenda.done()
    assert agenda.failed(["rhythm"], now) == pauses[0]  # what is mended is forgotten
    assert agenda.failed(["rhythm"], now, 77.0) == 77.0  # FlexMeasures said how long


def test_an_event_does_not_wait_for_the_end_of_a_long_pause_unless_flexmeasures_asked_for_it() -> None:
    agenda = Agenda(900)
    for _ in range(8):
        agenda.failed(agenda.begin(NOW), NOW)
    agenda.notice("prices", NOW)
    assert agenda.due(NOW + FIRST_PAUSE_SECONDS)
    agenda.failed(agenda.begin(NOW), NOW, 60.0)
    agenda.notice("limits", NOW)
    assert not agenda.due(NOW + 59)
    assert agenda.due(NOW + 60)


@given(st.lists(st.floats(0, 60), max_size=80))
def test_no_more_is_triggered_than_flexmeasures_takes(pauses: list[float]) -> None:
    pace, sent, now = Pace(9, 300.0), [], 0.0
    for pause in pauses:
        now += pause + pace.wait(now + pause)
        assert pace.wait(now) <= 1e-6
        pace.spend(now)
        sent.append(now)
    assert all(later - first >= 300 - 1e-6 for first, later in zip(sent, sent[9:], strict=False))


def test_forecasts_leave_room_for_plans() -> None:
    pace = Pace(9, 300.0)
    for second in range(5):
        pace.spend(second)
    assert pace.wait(10, keep=4) == 290
    assert pace.wait(10) == 0


# --- what ------------------------------------------------------------------------------------------------------------


class FlexMeasures:
    """Answers as FlexMeasures does; `prices` by sensor, `kw` is what every device is to do."""

    def __init__(self) -> None:
        self.prices: dict[int, list[float | None]] = {84: [100.0] * 25, 85: [50.0] * 25}
        self.kw = 10.0
        self.job: list[tuple[int, dict[str, Any]]] = [(200, {"status": "FINISHED"})]
        self.trigger: tuple[int, dict[str, Any]] = (202, {"job": "j1"})
        self.schedule: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.plugin = True
        self.asked: list[tuple[str, str]] = []
        self.questions: list[dict[str, Any]] = []
        self.away = False

    async def ask(
        self, method: str, path: str, *, body: Any = None, query: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        await asyncio.sleep(0)
        self.asked.append((method, path))
        if self.away:
            raise AwayError("FlexMeasures cannot be reached")
        if path.endswith("/forecasts/trigger"):
            self.questions.append(body)
            return self.trigger
        if path.endswith("/data"):
            values = self.prices.get(int(path.split("/")[1]), [])
            coarser = query is not None and query.get("resolution") == "PT1H" and len(values) > 168
            return 200, {"values": [None] * 168 if coarser and values[0] is None else values}  # as FlexMeasures does
        if path.startswith("jobs/"):
            return self.job[0] if len(self.job) == 1 else self.job.pop(0)
        if path.endswith("/schedules/trigger"):
            assert path == "assets/7/schedules/trigger"
            self.questions.append(body)
            return self.trigger
        if path.startswith("/cariflex/v1/schedules/"):
            if not self.plugin:
                return 404, {}
            assert query is not None
            plan = {"unit": "kW", "start": moment(CELL), "values": [self.kw] * 96} | self.schedule
            return 200, {"schedules": dict.fromkeys(query["sensors"].split(","), plan)} | self.answer
        if "/schedules/" in path:
            assert query == {"duration": self.questions[-1]["duration"], "unit": "kW"}
            return 200, {"unit": "kW", "start": moment(CELL), "values": [self.kw] * 96} | self.schedule
        return 200, {"generic_asset_id": 7}


class Site:
    """A planner with its files."""

    def __init__(self, folder: Path) -> None:
        self.now = float(NOW)
        settings = PlannerSettings.model_validate(
            {
                "data_dir": folder,
                "flexmeasures": {"url": "http://flexmeasures-server:5000", "email": "ven@cariflex.internal"},
                "consumption_price": {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"},
                "production_price": {"sensor": 85, "unit": "EUR/MWh", "resolution": "PT1H"},
                "production": [41, 42],
                "resources": {
                    "battery_01": {"sensor": 101, "max_kw": 50},
                    "ev_01": {"sensor": 106, "max_kw": 22},
                },
            }
        )
        self.flexmeasures = FlexMeasures()
        self.ven, self.outbox = Outbox(folder, lambda: self.now), Outbox(folder, lambda: self.now)
        self.plans, self.observations = Plans(folder), Observations(folder, lambda: self.now)
        self.planner = Planner(
            settings,
            self.flexmeasures,  # type: ignore[arg-type]
            *(self.outbox, self.plans, self.observations, lambda: self.now),
        )
        self.ven.report_flexibility({"battery_01": BATTERY}, self.now)

    def plan(self) -> dict[str, tuple[Stretch, ...]]:
        """Plan once; what the devices then have."""
        self.planner.agenda.notice("prices", self.now)
        asyncio.run(self.planner.plan_now())
        return self.plans.since(self.now)

    def event(self, name: str, value: float, event_id: str = "e", **different: Any) -> None:
        """The VEN accepts an event for the next hour."""
        stretches = () if different.get("cancelled") else (Stretch(CELL, CELL + 3600, value),)
        number = different.get("number", 0)
        event = ReceivedEvent(event_id, number, name, CELL, CELL + 3600, stretches, different.get("cancelled", False))
        self.ven.accept(event, {"ENERGY_PRICE": PRICE})

    def runs(self) -> list[dict[str, Any]]:
        """What was kept for the database."""
        return [content for _, content in self.observations.first(100)]

    def close(self) -> None:
        for store in (self.ven, self.outbox, self.plans, self.observations):
            store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A planner whose FlexMeasures answers."""
    site = Site(tmp_path)
    yield site
    site.close()


def test_what_flexmeasures_plans_is_what_the_cem_gets(site: Site) -> None:
    assert site.plan() == {"battery_01": (Stretch(CELL, CELL + 86400, 10.0),)}
    (question,) = site.flexmeasures.questions
    assert [one["sensor"] for one in question["flex-model"]] == [101]  # the EV has told nothing
    reasons, facts = site.planner.health()
    assert not reasons
    assert (facts["plan"]["devices"], facts["seconds_since_plan"]) == (1, 0.0)
    (run,) = site.runs()
    assert (run["kind"], run["status"], run["devices"]) == ("schedule_run", "ok", 1)
    assert run["trigger"] == "start, prices"
    # one price: 240 kWh cost the same at any hour, and 10 kW all day are a lower peak than 50 kW at once
    assert (run["cost_eur"], run["baseline_cost_eur"]) == pytest.approx((24.0, 24.0))
    assert (run["peak_kw"], run["baseline_peak_kw"]) == (10.0, 50.0)


def test_all_plans_are_read_at_once_and_one_by_one_without_our_plugin(site: Site) -> None:
    site.ven.report_flexibility({"battery_01": BATTERY, "ev_01": BATTERY}, site.now)
    expected = (Stretch(CELL, CELL + 86400, 10.0),)
    assert site.plan() == {"battery_01": expected, "ev_01": expected}
    assert [path for _, path in site.flexmeasures.asked if "/schedules/j" in path] == ["/cariflex/v1/schedules/j1"]
    site.flexmeasures.plugin = False
    site.flexmeasures.asked.clear()
    assert site.plan() == {"battery_01": expected, "ev_01": expected}
    assert [path for _, path in site.flexmeasures.asked if "/schedules/j" in path] == [
        "/cariflex/v1/schedules/j1",
        "sensors/101/schedules/j1",
        "sensors/106/schedules/j1",
    ]


@pytest.mark.parametrize("answer", [{"schedules": {}}, {"schedules": None}, {"schedules": {"101": {"unit": "kW"}}}])
def test_a_plan_that_is_missing_in_the_answer_leaves_the_last_one(site: Site, answer: dict[str, Any]) -> None:
    before = site.plan()
    site.flexmeasures.answer = answer
    assert site.plan() == before
    assert site.planner.trouble is not None


@pytest.mark.parametrize("sensor", [84, 85])
def test_without_a_price_nothing_is_planned_and_health_says_so(site: Site, sensor: int) -> None:
    site.flexmeasures.prices[sensor] = [None] * 25
    assert site.plan() == {}
    assert not site.flexmeasures.questions
    reasons, facts = site.planner.health()
    assert not reasons  # it is as it should be where no price is known
    assert f"no price at sensor {sensor}" in facts["nothing_planned_because"]


def test_a_plan_does_not_reach_beyond_the_known_prices(site: Site) -> None:
    site.flexmeasures.prices[85] = [50.0] * 3 + [None] * 22
    assert site.plan()["battery_01"][-1].end == NOW // 3600 * 3600 + 3 * 3600


def test_without_a_state_of_charge_nothing_is_planned(site: Site) -> None:
    site.now += 91  # the CEM has been silent since
    assert site.plan() == {}
    assert not site.flexmeasures.questions
    assert "state of charge" in site.planner.health()[1]["nothing_planned_because"]


FAILURES = {
    "away": {"away": True},
    "busy": {"trigger": (422, {"message": "no such sensor"})},
    "failed": {"job": [(202, {}), (422, {"status": "FAILED", "message": "infeasible"})]},
    "lost": {"job": [(404, {"message": "not found"})]},
    "nonsense": {"schedule": {"values": [None]}},
    "empty": {"schedule": {"values": []}},
    "no job": {"trigger": (200, {})},
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failure_keeps_the_last_plan_says_why_and_tries_again(site: Site, failure: dict[str, Any]) -> None:
    before = site.plan()
    site.flexmeasures.kw = 20.0
    sound = {name: getattr(site.flexmeasures, name) for name in failure}
    for name, value in failure.items():
        setattr(site.flexmeasures, name, value)
    assert site.plan() == before
    reasons, facts = site.planner.health()
    assert facts["trouble"]
    assert not reasons  # the last plan holds; soon it is a reason
    assert site.runs()[-1]["status"] == "failed"
    site.now += 1801
    assert site.planner.health()[0]
    site.now -= 1801
    for name, value in sound.items():
        setattr(site.flexmeasures, name, value)
    assert site.planner.agenda.due(site.now + LONGEST_PAUSE_SECONDS)
    assert site.plan()["battery_01"][0].value == 20.0
    assert site.planner.health()[1]["trouble"] is None


def test_a_job_that_nobody_takes_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.flexmeasures.job = [(202, {"status": "QUEUED"})]
    monkeypatch.setattr(module, "JOB_SECONDS", -1.0)
    monkeypatch.setattr(Planner.finished, "__defaults__", (-1.0,))
    assert site.plan() == {}
    assert "queued" in site.planner.health()[1]["trouble"]
    assert "flexmeasures-worker" in site.planner.health()[1]["trouble"]


def test_when_the_price_is_taken_back_the_plan_ends(site: Site) -> None:
    assert site.plan()
    site.flexmeasures.prices[84] = []
    assert site.plan() == {}


def test_a_device_that_goes_away_has_no_plan_any_more(site: Site) -> None:
    site.ven.report_flexibility({"ev_01": Flexibility(-22, 22, 0, 60, 30)}, site.now)
    assert set(site.plan()) == {"battery_01", "ev_01"}
    site.ven.report_flexibility({"ev_01": Flexibility(0, 0, 0, 60, 30)}, site.now)
    assert set(site.plan()) == {"battery_01"}


def test_a_plan_waits_until_the_price_of_its_event_is_in_flexmeasures(site: Site) -> None:
    async def scenario() -> None:
        site.event("ENERGY_PRICE", 300.0)
        task = asyncio.create_task(site.planner.plan_now())
        await asyncio.sleep(0.3)
        assert not site.flexmeasures.asked
        while (post := site.ven.next()) is not None:
            site.ven.delivered(post)
        await task
        assert site.flexmeasures.questions

    asyncio.run(scenario())


def test_events_that_change_prices_or_limits_bring_a_plan_and_their_end_does_not(site: Site) -> None:
    planner, agenda = site.planner, site.planner.agenda
    planner._look(site.now)
    site.plan()
    for number, (signal, cause) in enumerate((("ENERGY_PRICE", "prices"), ("LOAD_CONTROL", "limits"))):
        site.event(signal, 50.0, signal)
        planner._look(site.now)
        assert agenda.begin(site.now) == [cause]
        site.event(signal, 60.0, signal, number=number + 1)
        planner._look(site.now)
        assert agenda.begin(site.now) == [cause]
    site.event("LOAD_DISPATCH", 50.0, "dispatch")
    planner._look(site.now)
    assert agenda.begin(site.now) == []
    site.event("LOAD_CONTROL", 0, "LOAD_CONTROL", number=9, cancelled=True)
    planner._look(site.now)
    assert agenda.begin(site.now) == ["limits"]
    site.ven.report_flexibility({"battery_01": BATTERY}, site.now + 3600)
    site.now = CELL + 3600.0
    planner._look(site.now)
    assert agenda.begin(site.now) == []


def test_a_device_that_comes_or_changes_brings_a_plan_and_one_that_charges_does_not(site: Site) -> None:
    planner, agenda = site.planner, site.planner.agenda
    planner._look(site.now)
    site.plan()
    site.ven.report_flexibility({"battery_01": Flexibility(-50.0, 50.0, 0.0, 100.0, 61.0)}, site.now)
    planner._look(site.now)
    assert agenda.begin(site.now) == []
    site.ven.report_flexibility({"ev_01": Flexibility(-22, 22, 0, 60, 30)}, site.now)
    planner._look(site.now)
    assert agenda.begin(site.now) == ["devices"]


def test_a_limit_is_in_the_question(site: Site) -> None:
    site.event("LOAD_CONTROL", 50.0)
    site.plan()
    first = site.flexmeasures.questions[0]["flex-context"]["site-consumption-capacity"][0]
    assert (first["start"], first["value"]) == (moment(CELL), "36 kW")


@pytest.mark.parametrize("signal", ["ENERGY_PRICE", "LOAD_CONTROL"])
def test_an_interval_that_has_ended_is_no_change_while_its_event_goes_on(site: Site, signal: str) -> None:
    hours = tuple(Stretch(CELL + 3600 * hour, CELL + 3600 * (hour + 1), 50.0 + hour) for hour in range(3))
    event = ReceivedEvent("day", 0, signal, CELL, CELL + 3 * 3600, hours)
    site.ven.accept(event, {"ENERGY_PRICE": PRICE})
    site.planner._look(site.now)
    site.planner.agenda.begin(site.now)
    for hour in range(3):
        for second in (1, 2):
            site.now = CELL + 3600.0 * (hour + 1) + second
            site.ven.report_flexibility({"battery_01": BATTERY}, site.now)
            site.planner._look(site.now)
            assert site.planner.agenda.causes == [], f"{second} s after the end of hour {hour + 1}"


# --- forecasts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def forecasts(site: Site) -> Forecasts:
    """Of sensors 41 and 42, of which the first has been there for a week; the first plan is made."""
    site.flexmeasures.prices[41] = [1.0] * 2016
    site.flexmeasures.prices[42] = [None] * 12 * 121 + [1.0] * 12 * 47
    site.plan()
    site.flexmeasures.questions.clear()
    return Forecasts(site.planner._settings, site.planner, lambda: site.now)


def test_what_is_not_controlled_is_forecast_on_a_rhythm(site: Site, forecasts: Forecasts) -> None:
    assert forecasts.due(site.now) == 41
    assert asyncio.run(forecasts.forecast(41))
    assert site.flexmeasures.questions == [{"duration": "P1D"}]
    assert forecasts.facts()["41"] == "made"
    forecasts.sensors[42].next = 1e12
    assert forecasts.due(site.now + 6 * 3600 - 1) is None
    assert forecasts.due(site.now + 6 * 3600) == 41


def test_too_little_history_is_said_and_plans_go_on_without(site: Site, forecasts: Forecasts) -> None:
    assert not asyncio.run(forecasts.forecast(42)), "the next one need not wait"
    assert not site.flexmeasures.questions
    assert forecasts.facts()["42"] == "too little to learn from: 47 of 48 hours"
    assert site.plan()


def test_history_that_comes_later_is_found_within_minutes(site: Site, forecasts: Forecasts) -> None:
    asyncio.run(forecasts.forecast(42))
    forecasts.sensors[41].next = 1e12
    assert forecasts.due(site.now + 59) is None
    site.flexmeasures.prices[42] = [None] * 12 * 119 + [1.0] * 12 * 49
    site.now += 60
    assert forecasts.due(site.now) == 42
    asyncio.run(forecasts.forecast(42))
    assert forecasts.facts()["42"] == "made"


def test_a_forecast_that_fails_is_tried_again_later_and_plans_go_on(site: Site, forecasts: Forecasts) -> None:
    site.flexmeasures.job = [(422, {"message": "no model"})]
    asyncio.run(forecasts.forecast(41))
    assert "no model" in forecasts.facts()["41"]
    forecasts.sensors[42].next = 1e12
    assert forecasts.due(site.now + 3599) is None
    assert forecasts.due(site.now + 3600) == 41


def test_a_flexmeasures_that_is_away_is_asked_for_forecasts_again_within_minutes(
    site: Site, forecasts: Forecasts
) -> None:
    site.flexmeasures.away = True
    asyncio.run(forecasts.forecast(41))
    assert "cannot be reached" in forecasts.facts()["41"]
    site.flexmeasures.away = False
    forecasts.sensors[42].next = 1e12
    assert forecasts.due(site.now + 59) is None
    assert forecasts.due(site.now + 60) == 41


def test_forecasts_wait_while_a_plan_is_due_or_triggers_are_few(site: Site, forecasts: Forecasts) -> None:
    site.planner.agenda.notice("prices", site.now)
    assert forecasts.due(site.now) is None
    site.planner.agenda.begin(site.now)
    for _ in range(4):
        site.planner.pace.spend(site.now)
    assert forecasts.due(site.now + BETWEEN_SECONDS) is None
    assert forecasts.due(site.now + 306) == 41


# --- the CEM, FlexMeasures' door, settings ---------------------------------------------------------------------------


async def test_the_cem_tells_what_its_devices_can_do_and_forgets_those_that_go(tmp_path: Path) -> None:
    async with running_cem(tmp_path) as running:
        async with simulated(running.url, "battery_01", "ev_01"):
            await eventually(lambda: len(running.ven.flexibilities(0)) == 2, seconds=5)
            able = running.ven.flexibilities(0)
            assert able["battery_01"] == Flexibility(-50, 50, 0, 100, 50)
            ev = able["ev_01"]
            assert (ev.low_kw, ev.high_kw, ev.most_kwh, [one.value for one in ev.targets]) == (-22, 22, 60, [48])
        await eventually(lambda: not running.ven.flexibilities(0), seconds=5)


async def flexmeasures_says(answers: list[tuple[int, Any, dict[str, str]]]) -> tuple[list[Any], list[str]]:
    """What a client gets that asks once for each answer, with what it sent as its token."""
    tokens: list[str] = []

    async def log_in(_request: web.Request) -> web.Response:
        return web.json_response({"auth_token": f"token-{len(tokens)}"})

    async def answer(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        status, content, headers = answers.pop(0)
        return web.Response(status=status, text=content, headers=headers)

    app = web.Application()
    app.add_routes([web.post("/api/requestAuthToken", log_in), web.get("/api/v3_0/x", answer)])
    port = free_port()
    got: list[Any] = []
    runner = await listen(app, "127.0.0.1", port)
    try:
        async with FlexMeasuresClient(f"http://127.0.0.1:{port}/", "ven@cariflex.internal", SecretStr("x")) as client:
            while answers:
                try:
                    got.append(await client.ask("GET", "x"))
                except FlexMeasuresError as error:
                    got.append((str(error), error.pause))
    finally:
        await runner.cleanup()
    return got, tokens


async def test_a_login_that_has_grown_old_is_made_again() -> None:
    got, tokens = await flexmeasures_says([(200, "{}", {}), (401, "{}", {}), (200, '{"a": 1}', {})])
    assert got == [(200, {}), (200, {"a": 1})]
    assert tokens == ["token-0", "token-0", "token-2"]


async def test_flexmeasures_says_how_long_to_wait_and_nonsense_is_no_answer() -> None:
    got, _ = await flexmeasures_says(
        [(429, "", {"Retry-After": "17"}), (503, "", {}), (422, "[1]", {}), (404, "nonsense", {})]
    )
    assert [one[1] for one in got[:2]] == [17.0, None]
    assert "429" in got[0][0]
    assert got[2:] == [(422, {}), (404, {})]


async def test_without_flexmeasures_there_is_an_error_that_says_where() -> None:
    port = free_port()
    async with FlexMeasuresClient(f"http://127.0.0.1:{port}", "ven@cariflex.internal", SecretStr("hush")) as client:
        with pytest.raises(FlexMeasuresError, match=f"127.0.0.1:{port}") as caught:
            await client.ask("GET", "x")
    assert "hush" not in str(caught.value)


PRICES = {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"}
SETTINGS: dict[str, Any] = {
    "flexmeasures": {"url": "http://flexmeasures-server:5000", "email": "ven@cariflex.internal"},
    "consumption_price": PRICES,
    "production_price": PRICES,
    "resources": {"battery_01": {"sensor": 101, "max_kw": 50}},
}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"every": "PT10M"}, "every is no multiple of resolution"),
        ({"every": "15"}, "ISO 8601"),
        ({"horizon": "PT49H"}, "longer than PT48H"),
        ({"resolution": "PT25M"}, "no multiple|divide a day"),
        ({"resolution": "PT2H", "every": "PT2H", "horizon": "PT24H"}, "the resolution of sensor 84"),
        ({"consumption_price": PRICES | {"unit": "EUR/kWh"}}, "pattern"),
        ({"roundtrip_efficiency": 1.1}, "less than or equal to 1"),
        ({"forecast_every": "PT15M"}, "shorter than an hour"),
        ({"horizn": "PT24H"}, "horizn"),
        ({"resources": {"battery_01": {"sensor": 0, "max_kw": 50}}}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], text: str) -> None:
    PlannerSettings.model_validate(SETTINGS)
    with pytest.raises(ValueError, match=text):
        PlannerSettings.model_validate(SETTINGS | wrong)
