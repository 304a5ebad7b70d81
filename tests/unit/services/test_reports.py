"""What the VEN reports of the S2 resources: as the VTN asked for it, and nothing that is not known."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cariflex.ven import reports as module
from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import DeviceState, Outbox
from cariflex.ven.reporter import Reporter
from cariflex.ven.reports import ReportError, Reports, Status
from cariflex.ven.settings import ReportedResource
from tests.unit.services.openadr_support import HastySession, eventually
from tests.unit.services.scripted_vtn import ScriptedVtn, scripted_vtn

T0 = 1_800_000_000
RESOURCES = {
    "battery_01": ReportedResource(min_kw=-50, max_kw=50),
    "ev_01": ReportedResource(min_kw=-22, max_kw=22),
}
USAGE = frozenset({"battery_01:power", "battery_01:energy", "ev_01:power", "ev_01:energy"})
STATUS = frozenset({"battery_01:status", "ev_01:status"})


class Site:
    """A clock and the states of devices, both set by the test."""

    def __init__(self) -> None:
        self.now = float(T0)
        self.states: dict[str, DeviceState] = {}
        self.reports = Reports(RESOURCES, lambda: self.states, lambda: self.now)

    def state(self, name: str, power: float | None = 10.0, energy: float | None = 40.0, connected: bool = True) -> None:
        self.states[name] = DeviceState(power, energy, connected, self.now)

    def want(self, name: str = "TELEMETRY_USAGE", r_ids: frozenset[str] = USAGE, **different: Any) -> None:
        self.reports.request(wanted(name, r_ids, **different))

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            for name, state in self.states.items():
                self.state(name, state.power_kw, state.stored_kwh, state.connected)
            self.reports.sample()

    def send(self) -> list[tuple[int, str, float | Status]]:
        """Everything that is due, as if the VTN took it."""
        sent: list[tuple[int, str, float | Status]] = []
        while due := next(self.reports.due(), None):
            sent += [(value.at, value.r_id, value.value) for value in due[1]]
            self.reports.sent(*due)
        return sent


def wanted(name: str, r_ids: frozenset[str], **different: Any) -> dict[str, Any]:
    specifier = {
        "report_specifier_id": name,
        "granularity": timedelta(seconds=different.get("granularity", 60)),
        "report_back_duration": timedelta(seconds=different.get("back", 60)),
        "specifier_payloads": [{"r_id": r_id, "reading_type": "Direct Read"} for r_id in sorted(r_ids)],
    }
    if interval := different.get("interval"):
        specifier["report_interval"] = interval
    return {"report_request_id": different.get("request_id", "r1"), "report_specifier": specifier}


@pytest.fixture
def site() -> Site:
    return Site()


def test_values_are_taken_at_the_granularity_and_sent_at_the_report_back_duration(site: Site) -> None:
    site.state("battery_01")
    site.want(granularity=60, back=180)
    site.run(179)
    assert site.send() == []
    site.run(1)
    powers = [(at, value) for at, r_id, value in site.send() if r_id == "battery_01:power"]
    assert powers == [(T0 + 60, 10.0), (T0 + 120, 10.0), (T0 + 180, 10.0)]


def test_a_device_that_is_away_has_no_power_and_is_offline(site: Site) -> None:
    site.state("battery_01", -25.0, 40.0)
    site.state("ev_01", 0.0, 3.0, connected=False)
    site.want(request_id="usage")
    site.want("TELEMETRY_STATUS", STATUS, request_id="status")
    site.run(60)
    assert {(r_id, value) for _, r_id, value in site.send()} == {
        ("battery_01:power", -25.0),
        ("battery_01:energy", 40.0),
        ("battery_01:status", Status(True, (-1.0, 1.0, -0.5))),
        ("ev_01:status", Status(False)),
    }


def test_what_is_not_known_is_not_invented(site: Site) -> None:
    """A device of which the CEM never spoke, one without measurements, and a CEM that no longer speaks."""
    site.state("ev_01", None, float("nan"))
    site.want(request_id="usage")
    site.want("TELEMETRY_STATUS", STATUS, request_id="status")
    site.run(60)
    expected = {("battery_01:status", Status(False)), ("ev_01:status", Status(True))}
    assert {(r_id, value) for _, r_id, value in site.send()} == expected
    site.now += 600  # the CEM is dead: its last word is old
    site.reports.sample()
    assert {value for *_, value in site.send()} == {Status(False)}


def test_times_in_which_nothing_was_looked_at_are_left_out(site: Site) -> None:
    site.state("battery_01")
    site.want(r_ids=frozenset({"battery_01:power"}))
    site.run(60)
    site.now += 300  # the process was frozen
    site.run(60)
    assert [at for at, *_ in site.send()] == [T0 + 60, T0 + 360, T0 + 420]


def test_once_means_now_and_once(site: Site) -> None:
    site.state("battery_01")
    site.want(r_ids=frozenset({"battery_01:power"}), granularity=0, back=0)
    site.run(3)
    assert len(site.send()) == 1
    site.run(3)
    assert site.send() == []
    assert site.reports.pending() == []


def test_a_report_interval_is_kept_to(site: Site) -> None:
    site.state("battery_01")
    start = datetime.fromtimestamp(T0 + 120, UTC)
    interval = {"dtstart": start, "duration": timedelta(seconds=120)}
    site.want(r_ids=frozenset({"battery_01:power"}), interval=interval)
    site.run(600)
    assert [at for at, *_ in site.send()] == [T0 + 120, T0 + 180, T0 + 240]
    assert site.reports.pending() == []


def test_while_the_vtn_is_away_values_wait_and_their_number_is_bounded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG", 6)
    site.state("battery_01")
    site.want(r_ids=frozenset({"battery_01:power"}))
    site.run(600)
    assert [at for at, *_ in site.send()] == [T0 + 60 * n for n in range(5, 11)]


def test_values_that_waited_go_to_the_request_that_comes_after_the_next_registration(site: Site) -> None:
    site.state("battery_01")
    site.want(r_ids=frozenset({"battery_01:power"}))
    site.run(120)
    site.reports.registered()
    assert site.send() == [], "the VTN has not asked again"
    site.want(r_ids=frozenset({"battery_01:power"}), request_id="another")
    site.run(60)
    assert [at for at, *_ in site.send()] == [T0 + 60, T0 + 120, T0 + 180]
    assert site.reports.pending() == ["another"]


def test_the_same_request_again_is_one_request(site: Site) -> None:
    """openleadr's VEN doubles its jobs with each registration."""
    site.state("battery_01")
    for _ in range(3):
        site.reports.registered()
        site.want(r_ids=frozenset({"battery_01:power"}))
    site.run(60)
    assert len(site.send()) == 1


def test_a_cancelled_report_ends_with_or_without_a_last_one(site: Site) -> None:
    site.state("battery_01")
    site.want(granularity=10, back=600, request_id="a")
    site.want(granularity=10, back=600, request_id="b")
    site.run(30)
    site.reports.cancel("a", report_to_follow=False)
    site.reports.cancel("b", report_to_follow=True)
    assert len(site.send()) == 6
    assert site.reports.pending() == []
    with pytest.raises(ReportError, match="no report request 'a'"):
        site.reports.cancel("a", report_to_follow=False)


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"name": "HISTORY_USAGE"}, "no report 'HISTORY_USAGE'"),
        ({"r_ids": frozenset({"battery_99:power"})}, "no data point battery_99:power"),
        ({"r_ids": frozenset()}, "no data point none"),
        ({"r_ids": STATUS}, "no data point"),
        ({"granularity": 1}, "granularity is 1 s"),
        ({"granularity": 7200}, "granularity is 7200 s"),
        ({"back": -5}, "is not understood"),
    ],
)
def test_what_was_not_offered_is_refused(site: Site, different: dict[str, Any], said: str) -> None:
    with pytest.raises(ReportError, match=said):
        site.want(**different)


def test_a_vtn_cannot_ask_for_reports_without_end(site: Site) -> None:
    for number in range(20):
        site.want(request_id=f"r{number}")
    with pytest.raises(ReportError, match="more than 20"):
        site.want(request_id="r20")


# --- on the wire ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def reporting(vtn: ScriptedVtn, site: Site, outbox: Outbox) -> AsyncIterator[None]:
    session = HastySession("Cariflex-VEN-001", vtn.url, Inbox(outbox, {}), reporter=Reporter(site.reports))
    task = asyncio.create_task(session.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_reports_are_offered_asked_for_sent_and_cancelled(site: Site, tmp_path: Any) -> None:
    """Every message is validated against the schema of OpenADR 2.0b by the VTN of the test."""
    site.state("battery_01", 12.5, 40.0)
    async with scripted_vtn() as vtn:
        status = wanted("TELEMETRY_STATUS", STATUS, request_id="s1", granularity=10, back=10)
        vtn.answers["oadrRegisterReport"] = "oadrRegisteredReport", {"report_requests": [status]}
        async with reporting(vtn, site, Outbox(tmp_path)):
            await eventually(lambda: vtn.of("oadrCreatedReport"))
            offered = vtn.of("oadrRegisterReport")[0]["reports"]
            assert [report["report_name"] for report in offered] == [
                "METADATA_TELEMETRY_USAGE",
                "METADATA_TELEMETRY_STATUS",
            ]
            power = offered[0]["report_descriptions"][0]
            assert (power["r_id"], power["measurement"]["unit"], power["measurement"]["scale"]) == (
                "battery_01:power",
                "W",
                "k",
            )
            assert vtn.of("oadrCreatedReport")[0]["pending_reports"] == [{"report_request_id": "s1"}]

            usage = wanted("TELEMETRY_USAGE", USAGE, request_id="u1", granularity=10, back=10)
            wrong = wanted("TELEMETRY_USAGE", frozenset({"x:power"}), request_id="u2")
            vtn.polls.append(("oadrCreateReport", {"request_id": "q", "report_requests": [usage]}))
            vtn.polls.append(("oadrCreateReport", {"request_id": "q2", "report_requests": [wrong]}))
            await eventually(lambda: len(vtn.of("oadrCreatedReport")) == 3)
            assert [m["response"]["response_code"] for m in vtn.of("oadrCreatedReport")] == [200, 200, 452]

            site.run(10)
            await eventually(lambda: len(vtn.of("oadrUpdateReport")) == 2)
            sent = {
                report["reports"][0]["report_request_id"]: report["reports"][0] for report in vtn.of("oadrUpdateReport")
            }
            values = {i["report_payload"]["r_id"]: i["report_payload"] for i in sent["u1"]["intervals"]}
            assert {r_id: payload["value"] for r_id, payload in values.items()} == {
                "battery_01:power": 12.5,
                "battery_01:energy": 40.0,
            }
            online = {i["report_payload"]["r_id"]: i["report_payload"] for i in sent["s1"]["intervals"]}
            assert online["battery_01:status"]["payload_resource_status"]["online"] is True
            assert online["ev_01:status"]["payload_resource_status"]["online"] is False

            vtn.polls.append(
                ("oadrCancelReport", {"request_id": "c", "report_request_id": "u1", "report_to_follow": False})
            )
            await eventually(lambda: vtn.of("oadrCanceledReport"))
            assert vtn.of("oadrCanceledReport")[0]["pending_reports"] == [{"report_request_id": "s1"}]


async def test_a_report_without_an_answer_is_sent_again_and_a_refused_one_is_not(site: Site, tmp_path: Any) -> None:
    site.state("battery_01")
    async with scripted_vtn() as vtn:
        usage = wanted("TELEMETRY_USAGE", frozenset({"battery_01:power"}), granularity=10, back=10)
        vtn.answers["oadrRegisterReport"] = "oadrRegisteredReport", {"report_requests": [usage]}
        refusal = {"response_code": 454, "response_description": "no", "request_id": "r"}
        vtn.answers["oadrUpdateReport"] = "oadrUpdatedReport", {"response": refusal}
        async with reporting(vtn, site, Outbox(tmp_path)):
            await eventually(lambda: vtn.of("oadrCreatedReport"))
            site.run(10)
            await eventually(lambda: vtn.of("oadrUpdateReport"))
            await asyncio.sleep(0.5)
            assert len(vtn.of("oadrUpdateReport")) == 1
            del vtn.answers["oadrUpdateReport"]
            site.run(10)
            await eventually(lambda: len(vtn.of("oadrUpdateReport")) == 2)
