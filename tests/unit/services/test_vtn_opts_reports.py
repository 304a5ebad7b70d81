"""EiOpt, EiReport and groups: what VENs say of their availability and resources reaches the store, once and bounded."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jinja2 import PackageLoader
from openleadr import OpenADRClient, OpenADRServer, enums, messaging
from openleadr.messaging import create_message, parse_message

from cariflex.openadr.incoming import opt_schedule, parse
from cariflex.openadr.messages import MessageError
from tests.unit.services.openadr_support import (
    OTHER_VEN,
    VEN,
    MemoryStore,
    RunningVtn,
    eventually,
    next_hour,
    price_body,
    running_vtn,
    vtn_settings,
)
from tests.unit.services.test_vtn_protocol import EVENT, WIRE_ID, ask, poll, put, register, send_mutated


@pytest.fixture(autouse=True)
def stock_templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Messages as a stock VEN makes them: ours, which may be in this process too, has a template of its own."""
    monkeypatch.setattr(messaging.TEMPLATES, "loader", PackageLoader("openleadr", "templates"))
    if messaging.TEMPLATES.cache is not None:
        messaging.TEMPLATES.cache.clear()
    yield
    if messaging.TEMPLATES.cache is not None:
        messaging.TEMPLATES.cache.clear()


NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def availability(*starts: datetime, duration: timedelta = HOUR) -> dict[str, Any]:
    return {"components": [{"dtstart": start, "duration": duration} for start in starts]}


def create_opt(opt_id: str = "opt-1", **different: Any) -> str:
    """An oadrCreateOpt: optOut for an hour, unless told otherwise."""
    values: dict[str, Any] = {
        "opt_id": opt_id,
        "opt_type": "optOut",
        "opt_reason": "x-maintenance",
        "ven_id": VEN,
        "vavailability": availability(next_hour()),
        "created_date_time": NOW,
        "request_id": "r",
        "targets": [{"ven_id": VEN}],
    }
    return str(create_message("oadrCreateOpt", **(values | different)))


def about(event_id: str = WIRE_ID, number: int = 0, **different: Any) -> dict[str, Any]:
    """An opt for an event instead of a time."""
    return {"vavailability": None, "event_id": event_id, "modification_number": number} | different


async def say(vtn: RunningVtn, message: str, service: str = "EiOpt") -> tuple[str, int, str]:
    """Type, response code and description of the answer."""
    status, text = await vtn.send(service, message)
    assert status == 200, text
    kind, payload = parse_message(text)
    response = payload["response"]
    return kind, response["response_code"], response["response_description"]


async def opts(vtn: RunningVtn, query: str = "") -> list[dict[str, Any]]:
    status, answer = await vtn.api("GET", f"/api/v1/opts{query}")
    assert status == 200, answer
    listed: list[dict[str, Any]] = answer["opts"]
    return listed


async def test_an_opt_schedule_is_kept_listed_and_cancelled_and_survives_a_restart() -> None:
    """Plain openleadr has no EiOpt: 404."""
    store = MemoryStore()
    first, second = next_hour(), next_hour(30)
    async with running_vtn(store) as vtn:
        await register(vtn)
        message = create_opt(vavailability=availability(first, second), market_context="http://market")
        assert (await say(vtn, message))[:2] == ("oadrCreatedOpt", 200)
        assert (await say(vtn, message))[:2] == ("oadrCreatedOpt", 200), "sent again, it is the same one"
    async with running_vtn(store) as vtn:
        (listed,) = await opts(vtn, f"?ven_id={VEN}")
        assert listed["periods"] == [{"start": at.isoformat(), "duration": "PT1H"} for at in (first, second)]
        assert (listed["opt_id"], listed["opt_type"], listed["reason"]) == ("opt-1", "optOut", "x-maintenance")
        assert (listed["market_context"], listed["cancelled_at"]) == ("http://market", None)
        assert await opts(vtn, f"?ven_id={OTHER_VEN}") == []
        cancel = create_message("oadrCancelOpt", request_id="r", opt_id="opt-1", ven_id=VEN)
        for _ in range(2):
            assert (await say(vtn, cancel))[:2] == ("oadrCanceledOpt", 200)
        assert (await opts(vtn))[0]["cancelled_at"]
        assert (await say(vtn, message))[1] == 452, "a replay does not bring it back"
        assert (await opts(vtn))[0]["cancelled_at"]


async def test_an_opt_for_an_event_is_the_answer_to_it_and_can_change_it() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        assert (await say(vtn, create_opt(**about(opt_type="optIn"))))[1] == 200
        assert await poll(vtn) is None, "it needs no oadrCreatedEvent any more"
        assert (await say(vtn, create_opt("opt-2", **about())))[1] == 200
        _, event = await vtn.api("GET", EVENT)
        assert event["opts"][VEN]["opt_type"] == "optOut", "the VEN changed its mind"
        assert (await say(vtn, create_opt(**about(opt_type="optIn"))))[1] == 200
        _, event = await vtn.api("GET", EVENT)
        assert event["opts"][VEN]["opt_type"] == "optOut", "a replay of the first changes nothing"
        assert [listed["event_id"] for listed in await opts(vtn)] == ["price-1", "price-1"]


async def test_an_opt_for_an_old_version_or_for_some_resources_is_no_answer() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        await put(vtn, 99.0)
        assert (await say(vtn, create_opt("a", **about(number=0))))[1] == 200
        assert (await say(vtn, create_opt("b", **about(number=1, targets=[{"resource_id": "ev_01"}]))))[1] == 200
        assert await poll(vtn) == [(WIRE_ID, 1, "far")]
        assert {tuple(listed["resources"]) for listed in await opts(vtn)} == {(), ("ev_01",)}


@pytest.mark.parametrize(
    ("different", "code"),
    [
        ({"vavailability": None}, 454),
        ({"vavailability": availability(next_hour(), duration=timedelta(0))}, 454),
        ({"vavailability": availability(next_hour(), duration=timedelta(days=400))}, 454),
        ({"opt_id": "a" * 201}, 454),
        ({"opt_id": " "}, 454),
        ({"market_context": "http://" + "a" * 200}, 454),
        (about(f"price-1:{OTHER_VEN}"), 452),
        (about("unknown"), 452),
        (about(number=7), 452),
        ({"ven_id": "Stranger-001"}, 463),
    ],
)
async def test_an_opt_that_makes_no_sense_is_refused_and_nothing_stored(different: dict[str, Any], code: int) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        assert (await say(vtn, create_opt(**different)))[1] == code
        assert vtn.store.kept_opts == {}
        assert await poll(vtn) == [(WIRE_ID, 0, "far")]


async def test_an_id_stands_for_one_opt_of_one_ven() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await register(vtn, OTHER_VEN)
        assert (await say(vtn, create_opt("17")))[1] == 200
        assert (await say(vtn, create_opt("17", opt_type="optIn")))[1] == 452
        assert (await say(vtn, create_opt("17", ven_id=OTHER_VEN)))[1] == 200
        assert sorted((o["ven_id"], o["opt_id"], o["opt_type"]) for o in await opts(vtn)) == [
            (VEN, "17", "optOut"),
            (OTHER_VEN, "17", "optOut"),
        ]
        cancel = create_message("oadrCancelOpt", request_id="r", opt_id="0017", ven_id=VEN)
        assert (await say(vtn, cancel))[1] == 452, "ids are texts, not numbers"


async def test_opts_are_bounded_and_a_lost_store_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.services.openadr_support.MOST_OPTS", 2)
    async with running_vtn() as vtn:
        await register(vtn)
        vtn.store.broken = True
        assert (await say(vtn, create_opt("a")))[1] == 469
        vtn.store.broken = False
        assert [(await say(vtn, create_opt(name)))[1] for name in "aabc"] == [200, 200, 200, 452]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("PT1H", HOUR),
        ("+PT1H", HOUR),
        ("P0Y0M1DT0H", timedelta(days=1)),
        ("P0Y0MT1H", HOUR),
        ("P1Y", None),
        ("PT1", None),
    ],
)
def test_durations_are_read_as_others_write_them(written: str, meant: timedelta | None) -> None:
    message = create_opt().replace(">PT1H<", f">{written}<").encode()
    if meant is None:
        with pytest.raises((MessageError, SyntaxError)):
            opt_schedule(parse(message)[1]["message"])
    else:
        assert opt_schedule(parse(message)[1]["message"]).periods[0].duration == meant


# --- reports ---


async def stock_ven(vtn: RunningVtn) -> OpenADRClient:
    """A VEN as openleadr has it, with power, energy and status of two resources."""
    ven = OpenADRClient(ven_name=VEN, vtn_url=vtn.url, ven_id=None)
    for resource, kind, value in (("battery_01", "power_real", -12500.0), ("battery_02", "energy_real", 40000.0)):
        ven.add_report(
            callback=lambda value=value: value,
            resource_id=resource,
            measurement=getattr(enums.MEASUREMENTS, kind.upper()),
            report_specifier_id="usage",
            r_id=resource,
            sampling_rate=timedelta(seconds=1),
            report_name="TELEMETRY_USAGE",
        )
    ven.add_report(
        callback=lambda: 1.0,
        resource_id="battery_01",
        report_specifier_id="status",
        r_id="battery_01",
        sampling_rate=timedelta(seconds=1),
        report_name="TELEMETRY_STATUS",
    )
    return ven


async def values(vtn: RunningVtn, query: str = "") -> list[dict[str, Any]]:
    status, answer = await vtn.api("GET", f"/api/v1/reports/values{query}")
    assert status == 200, answer
    found: list[dict[str, Any]] = answer["values"]
    return found


async def test_a_stock_ven_registers_and_sends_reports() -> None:
    store = MemoryStore()
    settings = vtn_settings(reports={"TELEMETRY_USAGE": "PT1S", "TELEMETRY_STATUS": "PT1S"})
    async with running_vtn(store, settings) as vtn:
        ven = await stock_ven(vtn)
        await ven.run()
        try:
            await eventually(lambda: len(store.data) == 3)
        finally:
            await ven.stop()
        power = (await values(vtn, "?resource_id=battery_01&report_name=TELEMETRY_USAGE"))[0]
        assert (power["value"], power["unit"], power["ven_id"]) == (-12.5, "kW", VEN)
        assert {(v["value"], v["unit"]) for v in await values(vtn, "?resource_id=battery_02")} == {(40.0, "kWh")}
        assert {v["value"] for v in await values(vtn, "?report_name=TELEMETRY_STATUS")} == {1.0}
        _, answer = await vtn.api("GET", "/api/v1/reports")
        assert {(p["report_name"], p["r_id"], p["granularity"]) for p in answer["points"]} == {
            ("TELEMETRY_USAGE", "battery_01", "PT1S"),
            ("TELEMETRY_USAGE", "battery_02", "PT1S"),
            ("TELEMETRY_STATUS", "battery_01", "PT1S"),
        }
        assert all(point["last_value_at"] for point in answer["points"])


def described(*r_ids: str, period: timedelta = timedelta(minutes=1)) -> list[dict[str, Any]]:
    rate = {"min_period": timedelta(seconds=10), "max_period": period, "on_change": False}
    return [
        {
            "r_id": r_id,
            "report_data_source": {"resource_id": r_id},
            "report_type": "usage",
            "measurement": {"name": "powerReal", "description": "RealPower", "unit": "W", "scale": "k"}
            | {"power_attributes": {"hertz": 50, "voltage": 230, "ac": True}},
            "reading_type": "Direct Read",
            "sampling_rate": rate,
        }
        for r_id in r_ids
    ]


async def offer(vtn: RunningVtn, *r_ids: str, name: str = "TELEMETRY_USAGE", **different: Any) -> list[dict[str, Any]]:
    """Register a report; the requests of the answer."""
    reports = [metadata(*r_ids, name=name, **different)]
    _, payload = await ask(
        vtn, "EiReport", "oadrRegisterReport", request_id="r", ven_id=VEN, reports=reports, report_request_id=0
    )
    requests: list[dict[str, Any]] = payload.get("report_requests") or []
    return requests


def metadata(*r_ids: str, name: str = "TELEMETRY_USAGE", **different: Any) -> dict[str, Any]:
    """What a VEN could report."""
    return {
        "report_specifier_id": "usage",
        "report_name": f"METADATA_{name}",
        "report_request_id": 0,
        "created_date_time": NOW,
        "report_descriptions": described(*r_ids, **different),
    }


def update(
    *data: tuple[datetime, str, float], request: str = "request-usage", ven_id: str | None = VEN, **interval: Any
) -> str:
    intervals = [
        {"dtstart": at, "report_payload": {"r_id": r_id, "value": value}} | interval for at, r_id, value in data
    ]
    report = {
        "report_id": "1",
        "report_request_id": request,
        "report_specifier_id": "usage",
        "report_name": "TELEMETRY_USAGE",
        "created_date_time": NOW,
        "intervals": intervals,
    }
    return str(create_message("oadrUpdateReport", request_id="r", ven_id=ven_id, reports=[report]))


async def test_a_ven_that_registers_its_reports_again_gets_the_same_request() -> None:
    """Plain openleadr makes a new one each time, and the VEN sends everything as often as it was asked."""
    store = MemoryStore()
    requests = []
    for _ in range(2):
        async with running_vtn(store) as vtn:
            await register(vtn)
            requests += [await offer(vtn, "ev_01", "ev_02") for _ in range(2)]
            assert (await say(vtn, update((NOW, "ev_01", 7.0)), "EiReport"))[:2] == ("oadrUpdatedReport", 200)
    assert all(len(asked) == 1 and asked == requests[0] for asked in requests)
    specifier = requests[0][0]["report_specifier"]
    assert (specifier["report_specifier_id"], specifier["granularity"]) == ("usage", timedelta(minutes=1))
    assert [payload["r_id"] for payload in specifier["specifier_payloads"]] == ["ev_01", "ev_02"]
    assert len(store.data) == 1


async def test_what_a_ven_cannot_sample_or_nobody_wants_is_not_asked_for() -> None:
    async with running_vtn(settings=vtn_settings(reports={"TELEMETRY_USAGE": "PT1S"})) as vtn:
        await register(vtn)
        (asked,) = await offer(vtn, "ev_01")
        assert asked["report_specifier"]["granularity"] == timedelta(seconds=10), "the shortest that the VEN can"
        assert await offer(vtn, "ev_01", name="TELEMETRY_STATUS") == []
        assert await offer(vtn, "ev_01", name="HISTORY_USAGE") == []
        assert not any(point.offered for point in vtn.store.points.values())


async def test_a_value_is_kept_once_and_the_last_one_sent_counts() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await offer(vtn, "ev_01")
        for value in (7.0, 7.0, 8.5):
            assert (await say(vtn, update((NOW, "ev_01", value), duration=HOUR), "EiReport"))[1] == 200
        (kept,) = await values(vtn)
        assert (kept["value"], kept["unit"], kept["duration"], kept["resource_id"]) == (8.5, "kW", "PT1H", "ev_01")
        await say(vtn, update(*((NOW + n * HOUR, "ev_01", float(n)) for n in range(-3, 1))), "EiReport")
        start, end = ((NOW + n * HOUR).isoformat().replace("+", "%2B") for n in (-2, 0))
        assert [v["value"] for v in await values(vtn, f"?start={start}&end={end}")] == [-2.0, -1.0]
        assert [v["value"] for v in await values(vtn, "?limit=1")] == [0.0]


async def test_a_status_that_is_no_number_is_kept() -> None:
    """Plain openleadr breaks on it: its callback wants a value."""
    status = (
        "<oadr:oadrPayloadResourceStatus><oadr:oadrOnline>true</oadr:oadrOnline><oadr:oadrManualOverride>false"
        "</oadr:oadrManualOverride></oadr:oadrPayloadResourceStatus>"
    )
    async with running_vtn() as vtn:
        await register(vtn)
        await offer(vtn, "ev_01")
        message = update((NOW, "ev_01", 1.0))
        number = message[message.index("<ei:payloadFloat>") : message.index("</ei:payloadFloat>") + 18]
        assert (await say(vtn, message.replace(number, status), "EiReport"))[1] == 200
        (kept,) = await values(vtn)
        assert (kept["value"], kept["online"], kept["manual_override"]) == (None, True, False)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (lambda: update((NOW, "ev_01", 1.0), (NOW, "ev_09", 1.0)), 452),
        (lambda: update((NOW, "ev_01", 1.0), request="request-other"), 452),
        (lambda: update((NOW, "ev_01", 1.0), ven_id=None), 452),
        (lambda: update((NOW, "ev_01", 1.0), ven_id="Stranger-001"), 463),
        (lambda: update((NOW, "ev_01", 1.0), (NOW - 40 * 24 * HOUR, "ev_01", 1.0)), 454),
        (lambda: update((NOW, "ev_01", 1.0), (NOW + 48 * HOUR, "ev_01", 1.0)), 454),
        (lambda: update((NOW, "ev_01", 1.0)).replace(NOW.strftime("%Y-%m-%d"), "2026-02-30"), 400),
    ],
)
async def test_values_that_were_not_asked_for_are_refused_and_nothing_stored(
    message: Callable[[], str], code: int
) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await offer(vtn, "ev_01")
        if code == 400:
            assert (await vtn.send("EiReport", message()))[0] == 400
        else:
            assert (await say(vtn, message(), "EiReport"))[1] == code
        assert vtn.store.data == {}


async def test_points_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cariflex.vtn.store.MOST_POINTS", 2)
    async with running_vtn() as vtn:
        await register(vtn)
        assert len(await offer(vtn, "a", "b")) == 1
        assert await offer(vtn, "a", "b", "c") == []
        assert len(vtn.store.points) == 2


@pytest.mark.parametrize(
    ("query", "field"), [("?start=yesterday", "start"), ("?end=2026-01-01T00:00:00", "end"), ("?ven_id=%00", "ven_id")]
)
async def test_a_wrong_question_is_answered_with_the_field(query: str, field: str) -> None:
    async with running_vtn() as vtn:
        status, answer = await vtn.api("GET", f"/api/v1/reports/values{query}")
        assert (status, answer["errors"][0]["field"]) == (422, field)


# --- groups ---

GROUPED = {
    VEN: {"registration_id": f"reg-{VEN}", "groups": ["north", "sea"]},
    OTHER_VEN: {"registration_id": f"reg-{OTHER_VEN}", "groups": ["sea"]},
}


async def test_an_event_for_a_group_goes_to_who_is_in_it_and_shows_what_was_asked() -> None:
    async with running_vtn(settings=vtn_settings(vens=GROUPED)) as vtn:
        await register(vtn)
        await register(vtn, OTHER_VEN)
        await put(vtn, targets=["group:sea"])
        assert await poll(vtn) == [(WIRE_ID, 0, "far")]
        assert await poll(vtn, OTHER_VEN) == [(f"price-1:{OTHER_VEN}", 0, "far")]
        _, event = await vtn.api("GET", EVENT)
        assert (event["targets_asked"], event["targets"]) == (["group:sea"], [VEN, OTHER_VEN])
        await put(vtn, targets=["group:north"])
        assert await poll(vtn, OTHER_VEN) == [(f"price-1:{OTHER_VEN}", 1, "cancelled")]
        _, event = await vtn.api("GET", EVENT)
        assert [version["targets_asked"] for version in event["versions"]] == [["group:sea"], ["group:north"]]


async def test_an_unknown_group_is_refused_naming_those_there_are() -> None:
    async with running_vtn(settings=vtn_settings(vens=GROUPED)) as vtn:
        for targets, problem in (
            (["group:south"], "is not a group of this VTN"),
            (["all", VEN], "stands alone, not in a list"),
            (["south"], "is not a VEN of this VTN"),
        ):
            status, answer = await vtn.api("PUT", EVENT, price_body(next_hour(), targets=targets))
            assert (status, answer["errors"][0]["problem"]) == (422, problem)
            assert "group:north, group:sea" in answer["errors"][0]["fix"]
        assert vtn.store.history == {}


async def test_broken_opts_and_reports_are_never_the_vtns_fault() -> None:
    """What cannot be read is answered or refused, and neither lost values nor lost opts are the price."""
    register_report = create_message(
        "oadrRegisterReport", request_id="r", ven_id=VEN, reports=[metadata("ev_01")], report_request_id=0
    )
    well = {"response_code": 200, "response_description": "OK", "request_id": "r"}
    created_report = create_message("oadrCreatedReport", response=well, ven_id=VEN, pending_reports=[])
    messages = [
        ("EiOpt", create_opt("opt-2", vavailability=availability(NOW), market_context="http://market")),
        ("EiOpt", create_opt("opt-3", **about())),
        ("EiOpt", create_message("oadrCancelOpt", request_id="r", opt_id="opt-2", ven_id=VEN)),
        ("EiReport", str(register_report)),
        ("EiReport", update((NOW, "ev_01", 11.0))),
        ("EiReport", created_report),
    ]
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        await offer(vtn, "ev_01")
        assert (await say(vtn, update((NOW - HOUR, "ev_01", 7.0)), "EiReport"))[1] == 200
        assert (await say(vtn, create_opt(vavailability=availability(NOW), market_context="http://market")))[1] == 200
        await send_mutated(vtn, messages, 300)
        assert "opt-1" in [opt["opt_id"] for opt in await opts(vtn)]
        assert 7.0 in [value["value"] for value in await values(vtn)]
        assert (await say(vtn, update((NOW + HOUR, "ev_01", 8.0)), "EiReport"))[1] == 200


async def test_plain_openleadr_serves_no_opts_and_makes_a_new_request_each_time() -> None:
    """What the tests above are held against."""
    server = OpenADRServer(vtn_id="STOCK_VTN")
    paths = {route.resource.canonical for route in server.app.router.routes() if route.resource}
    assert any(path.endswith("/EiReport") for path in paths)
    assert not any(path.endswith("/EiOpt") for path in paths)

    async def want(
        ven_id: str,
        resource_id: str,
        measurement: str,
        unit: str,
        scale: str,
        min_sampling_interval: timedelta,
        max_sampling_interval: timedelta,
    ) -> Any:
        return (lambda _values: None), timedelta(seconds=10)

    server.add_handler("on_register_report", want)
    report = {
        "report_specifier_id": "usage",
        "report_name": "METADATA_TELEMETRY_USAGE",
        "report_request_id": 0,
        "created_date_time": NOW,
        "report_descriptions": described("ev_01"),
    }
    message = create_message("oadrRegisterReport", request_id="r", ven_id=VEN, reports=[report], report_request_id=0)
    service = server.services["report_service"]
    asked = set()
    for _ in range(2):
        _, answer = await service.register_report(parse_message(message)[1])
        asked |= {request.report_request_id for request in answer["report_requests"]}
    assert len(asked) == 2
