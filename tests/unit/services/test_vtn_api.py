"""The HTTP API of the VTN."""

import re
from typing import Any

import pytest

from cariflex.vtn.api import MAX_BODY_BYTES
from tests.unit.services.openadr_support import OTHER_VEN, VEN, next_hour, price_body, running_vtn

EVENT = "/api/v1/events/price-1"
START = next_hour()


async def test_put_creates_then_changes_nothing_then_modifies() -> None:
    async with running_vtn() as vtn:
        status, answer = await vtn.api("PUT", EVENT, price_body(START))
        assert (status, answer["changed"], answer["event"]["modification_number"]) == (201, True, 0)
        status, answer = await vtn.api("PUT", EVENT, price_body(START))
        assert (status, answer["changed"], answer["event"]["modification_number"]) == (200, False, 0)
        status, answer = await vtn.api("PUT", EVENT, price_body(START, 99.0))
        assert (status, answer["changed"], answer["event"]["modification_number"]) == (200, True, 1)
        assert answer["event"]["opts"] == {VEN: None}


async def test_delete_cancels_once() -> None:
    async with running_vtn() as vtn:
        await vtn.api("PUT", EVENT, price_body(START))
        status, answer = await vtn.api("DELETE", EVENT)
        assert (status, answer["changed"], answer["event"]["status"]) == (200, True, "cancelled")
        status, answer = await vtn.api("DELETE", EVENT)
        assert (status, answer["changed"], answer["event"]["modification_number"]) == (200, False, 1)
        status, answer = await vtn.api("PUT", EVENT, price_body(START))
        assert (status, answer["errors"][0]["fix"]) == (409, "Use a new event id.")


async def test_a_preview_answers_as_put_would_and_changes_nothing() -> None:
    preview = f"{EVENT}/preview"
    async with running_vtn() as vtn:
        status, answer = await vtn.api("POST", preview, price_body(START))
        assert (status, answer["changed"], answer["event"]["targets"]) == (200, True, [VEN])
        assert vtn.store.history == {}
        await vtn.api("PUT", EVENT, price_body(START))
        status, answer = await vtn.api("POST", preview, price_body(START))
        assert (status, answer["changed"], answer["event"]["modification_number"]) == (200, False, 0)
        status, answer = await vtn.api("POST", preview, price_body(START, 99.0))
        assert (status, answer["changed"], answer["event"]["modification_number"]) == (200, True, 1)
        status, answer = await vtn.api("POST", "/api/v1/events/price-2/preview", price_body(START))
        assert (status, answer["errors"][0]["field"]) == (409, "start")
        status, answer = await vtn.api("POST", preview, price_body(START, unit="kW"))
        assert (status, answer["errors"][0]["field"]) == (422, "unit")
        assert [version.intervals[0].value for version in vtn.store.history["price-1"]] == [120.0]


async def test_an_event_is_shown_with_its_versions() -> None:
    async with running_vtn() as vtn:
        await vtn.api("PUT", EVENT, price_body(START, 1.0, 2.0))
        await vtn.api("PUT", EVENT, price_body(START, 1.0, 3.0))
        _, event = await vtn.api("GET", EVENT)
        assert [interval["value"] for interval in event["intervals"]] == [1.0, 3.0]
        assert [[i["value"] for i in version["intervals"]] for version in event["versions"]] == [[1.0, 2.0], [1.0, 3.0]]
        assert (event["unit"], event["status"], event["targets"]) == ("EUR/MWh", "far", [VEN])


async def test_what_get_shows_can_be_put_again_and_changes_nothing() -> None:
    async with running_vtn() as vtn:
        await vtn.api("PUT", EVENT, price_body(START, 1.5, 2.25, priority=3, targets="all"))
        _, event = await vtn.api("GET", EVENT)
        kept = ("signal_name", "unit", "start", "intervals", "targets", "priority", "test_event")
        _, answer = await vtn.api("PUT", EVENT, {key: event[key] for key in kept})
        assert answer["changed"] is False


async def test_events_are_listed_latest_first() -> None:
    async with running_vtn() as vtn:
        for number in (1, 3, 2):
            await vtn.api("PUT", f"/api/v1/events/price-{number}", price_body(next_hour(number)))
        _, answer = await vtn.api("GET", "/api/v1/events")
        assert [event["event_id"] for event in answer["events"]] == ["price-3", "price-2", "price-1"]
        _, answer = await vtn.api("GET", "/api/v1/events?limit=1")
        assert [event["event_id"] for event in answer["events"]] == ["price-3"]
        for limit in ("0", "1001", "-1", "all", "１"):
            assert (await vtn.api("GET", f"/api/v1/events?limit={limit}"))[0] == 422


async def test_vens_are_listed() -> None:
    async with running_vtn() as vtn:
        _, answer = await vtn.api("GET", "/api/v1/vens")
        assert [ven["ven_id"] for ven in answer["vens"]] == [VEN, OTHER_VEN]
        assert answer["vens"][0]["registration_id"] is None


@pytest.mark.parametrize("token", [None, "", "wrong", "a-token-for-test", "a-token-for-tests!", "é"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_nothing_goes_without_the_token(method: str, token: str | None) -> None:
    async with running_vtn() as vtn:
        status, answer = await vtn.api(method, EVENT, price_body(START), token=token)
        assert (status, answer["errors"][0]["field"]) == (401, "Authorization")
        assert vtn.store.history == {}


async def test_health_metrics_and_description_need_no_token() -> None:
    async with running_vtn() as vtn:
        status, answer = await vtn.api("GET", "/health", token=None)
        assert (status, answer["status"]) == (200, "ok")
        status, answer = await vtn.api("GET", "/openapi.json", token=None)
        assert (status, answer["openapi"]) == (200, "3.1.0")


async def test_the_description_has_every_route_and_only_those() -> None:
    async with running_vtn() as vtn:
        _, answer = await vtn.api("GET", "/openapi.json", token=None)
        described = {(method, path) for path, methods in answer["paths"].items() for method in methods}
        assert described == {
            ("get", "/health"),
            ("get", "/metrics"),
            ("get", "/api/v1/watch"),
            ("get", "/api/v1/vens"),
            ("get", "/api/v1/opts"),
            ("get", "/api/v1/reports"),
            ("get", "/api/v1/reports/values"),
            ("get", "/api/v1/events"),
            *((method, "/api/v1/events/{event_id}") for method in ("get", "put", "delete")),
            ("post", "/api/v1/events/{event_id}/preview"),
        }
        for method, path in described:
            status, _ = await _status(vtn, method, path.replace("{event_id}", "price-1"))
            assert status in (200, 404) or (method != "get" and status == 422), path
        references = set(re.findall(r"#/components/schemas/(\w+)", str(answer)))
        assert references <= set(answer["components"]["schemas"])


async def _status(vtn: Any, method: str, path: str) -> tuple[int, Any]:
    if path in ("/metrics", "/api/v1/watch"):
        return 200, None  # no JSON: see test_metrics and test_vtn_watch.py
    status, answer = await vtn.api(method.upper(), path)
    return status, answer


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("PUT", EVENT, b"{", 422, "(whole input)"),
        ("PUT", EVENT, b"", 422, "(whole input)"),
        ("PUT", EVENT, b"[]", 422, "(whole input)"),
        ("PUT", EVENT, b"\xff", 422, "(whole input)"),
        ("PUT", EVENT, b"[" * 100000, 422, "(whole input)"),
        ("PUT", EVENT, b'{"unit": NaN}', 422, "unit"),
        ("PUT", EVENT, b" " * (MAX_BODY_BYTES + 1), 413, "(whole input)"),
        ("PUT", "/api/v1/events/9lives", price_body(START), 422, "event_id"),
        ("PUT", "/api/v1/events/a:b", price_body(START), 422, "event_id"),
        ("PUT", f"/api/v1/events/{'a' * 101}", price_body(START), 422, "event_id"),
        ("PUT", EVENT, price_body(START, unit="EUR/kWh"), 422, "unit"),
        ("DELETE", EVENT, None, 404, "(address)"),
        ("GET", EVENT, None, 404, "(address)"),
        ("GET", "/api/v2", None, 404, "(address)"),
        ("POST", EVENT, None, 405, "(address)"),
    ],
)
async def test_bad_requests_are_answered_4xx_with_field_and_fix(
    method: str, path: str, body: Any, status: int, field: str
) -> None:
    async with running_vtn() as vtn:
        got, answer = await vtn.api(method, path, body)
        assert got == status, answer
        assert field in [error["field"] for error in answer["errors"]], answer
        assert all(set(error) == {"field", "value", "problem", "fix"} and error["fix"] for error in answer["errors"])
        assert vtn.store.history == {}


async def test_an_overlap_is_a_conflict_and_names_the_other_event() -> None:
    async with running_vtn() as vtn:
        await vtn.api("PUT", EVENT, price_body(START))
        status, answer = await vtn.api("PUT", "/api/v1/events/price-2", price_body(START))
        assert status == 409
        assert "price-1" in answer["errors"][0]["fix"]


async def test_while_the_store_is_away_it_says_503_and_recovers() -> None:
    async with running_vtn() as vtn:
        vtn.store.broken = True
        status, answer = await vtn.api("PUT", EVENT, price_body(START))
        assert (status, answer["errors"][0]["field"]) == (503, "(store)")
        vtn.store.broken = False
        assert (await vtn.api("PUT", EVENT, price_body(START)))[0] == 201
