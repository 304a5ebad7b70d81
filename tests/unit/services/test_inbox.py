"""What the VEN understands of an event and answers."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import Outbox, OutboxError
from cariflex.ven.policy import Rule
from tests.unit.services.openadr_support import DESTINATIONS

START = datetime(2027, 1, 1, tzinfo=UTC)


def event(**different: Any) -> dict[str, Any]:
    """A price event as openleadr's client parses it."""
    descriptor = {"event_id": "a", "modification_number": 0, "event_status": "far", "test_event": False}
    descriptor |= different.pop("descriptor", {})
    signal = {
        "signal_name": "ENERGY_PRICE",
        "signal_type": "price",
        "measurement": {"name": "currencyPerKWh", "unit": "EUR", "scale": "none"},
        "intervals": [
            {"duration": timedelta(hours=1), "uid": 0, "signal_payload": 0.12},
            {"duration": timedelta(hours=1), "uid": 1, "signal_payload": 0.13},
        ],
    } | different.pop("signal", {})
    return {
        "event_descriptor": descriptor,
        "active_period": {"dtstart": START, "duration": timedelta(hours=2)},
        "event_signals": [signal],
        "response_required": "always",
    } | different


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


@pytest.fixture
def inbox(outbox: Outbox) -> Inbox:
    return Inbox(outbox, DESTINATIONS)


def test_an_event_is_answered_opt_in_and_its_values_wait_in_the_outbox(inbox: Inbox, outbox: Outbox) -> None:
    assert inbox.take(event()) == "optIn"
    post = outbox.next()
    assert post is not None
    assert (post.sensor, post.start, post.values) == (84, int(START.timestamp()), (120.0, 130.0))


def test_a_baseline_beside_the_signals_does_not_disturb(inbox: Inbox) -> None:
    signals = event()["event_signals"]
    assert inbox.take(event(event_signals={"event_signals": signals, "event_baseline": {}})) == "optIn"


def test_a_test_event_is_answered_and_brings_no_values(inbox: Inbox, outbox: Outbox) -> None:
    assert inbox.take(event(descriptor={"test_event": True})) == "optIn"
    assert outbox.next() is None


def test_what_cannot_be_understood_is_answered_opt_out_and_the_next_event_is_not(inbox: Inbox) -> None:
    """Plain openleadr answers every event optOut after one exception."""
    assert inbox.take(event(signal={"signal_name": "BID_LOAD"})) == "optOut"
    assert inbox.take({}) == "optOut"
    assert inbox.take(event(active_period={"dtstart": "2027-01-01T00:00:00"})) == "optOut"
    assert inbox.take(event(signal={"intervals": []})) == "optOut"
    for odd in ({"modification_number": 2**40}, {"modification_number": -1}, {"event_id": "x" * 2000}):
        assert inbox.take(event(descriptor=odd)) == "optOut"
    assert inbox.take(event(active_period={"dtstart": datetime(9999, 12, 31, 23, tzinfo=UTC)})) == "optOut"
    century = [{"duration": timedelta(days=36500), "uid": 0, "signal_payload": 0.12}]
    assert inbox.take(event(signal={"intervals": century})) == "optOut"
    assert inbox.take(event()) == "optIn"


def test_a_price_without_a_sensor_is_answered_opt_out(outbox: Outbox) -> None:
    assert Inbox(outbox, {}).take(event()) == "optOut"


def test_what_the_cem_follows_needs_no_sensor(outbox: Outbox) -> None:
    limit = {"signal_name": "LOAD_CONTROL", "signal_type": "x-loadControlCapacity"}
    assert Inbox(outbox, {}).take(event(signal=limit)) == "optIn"
    assert [stretch.value for stretch in outbox.asked("LOAD_CONTROL", 0)] == [12.0, 13.0]
    assert outbox.next() is None


def test_a_rule_of_the_operator_makes_it_opt_out_and_says_why(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    rule = Rule.model_validate({"reason": "maintenance", "start": START, "end": START + timedelta(hours=1)})
    assert Inbox(outbox, DESTINATIONS, rules=[rule]).take(event()) == "optOut"
    assert outbox.next() is None
    assert "maintenance (2027-01-01" in vars(caplog.records[0])["reason"]
    assert [(answer.event_id, answer.opt_type) for answer in outbox.opted_out()] == [("a", "optOut")]


def test_a_version_that_is_not_understood_ends_the_one_before(inbox: Inbox, outbox: Outbox) -> None:
    assert inbox.take(event()) == "optIn"
    assert inbox.take(event(descriptor={"modification_number": 1}, signal={"signal_type": "delta"})) == "optOut"
    assert outbox.asked("ENERGY_PRICE", 0) == []
    assert inbox.take(event(descriptor={"modification_number": 2})) == "optIn"
    assert outbox.asked("ENERGY_PRICE", 0) != []


def test_an_event_that_cannot_be_stored_is_not_answered_so_that_it_comes_again(inbox: Inbox, outbox: Outbox) -> None:
    outbox._connection.execute("PRAGMA query_only = ON")
    assert inbox.take(event()) is None
    assert "could not be stored" in (inbox.trouble or "")
    outbox._connection.execute("PRAGMA query_only = OFF")
    assert inbox.take(event()) == "optIn"
    assert inbox.trouble is None


def test_a_repeated_event_is_logged_once(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cariflex")
    for status in ("far", "near", "active"):
        assert inbox.take(event(descriptor={"event_status": status})) == "optIn"
    assert [record.message for record in caplog.records] == ["event answered"]
    assert vars(caplog.records[0])["event_id"] == "a"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.timedeltas() | st.datetimes()
garbage = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.data())
def test_it_answers_whatever_a_vtn_sends(inbox: Inbox, data: st.DataObject) -> None:
    """Any part of an event may be anything: there is an answer, and no exception."""
    sent = event()
    part = data.draw(st.sampled_from(["whole", "descriptor", "period", "signals", "signal", "interval"]))
    value = data.draw(garbage)
    if part == "whole":
        sent = value if isinstance(value, dict) else {"event_descriptor": value}
    elif part == "descriptor":
        sent["event_descriptor"][data.draw(st.sampled_from(sorted(sent["event_descriptor"])))] = value
    elif part == "period":
        sent["active_period"] = {"dtstart": value}
    elif part == "signals":
        sent["event_signals"] = value
    elif part == "signal":
        sent["event_signals"][0][data.draw(st.sampled_from(sorted(sent["event_signals"][0])))] = value
    else:
        sent["event_signals"][0]["intervals"][0][data.draw(st.sampled_from(["duration", "signal_payload"]))] = value
    assert inbox.take(sent) in ("optIn", "optOut")


def test_the_schema_ems_is_told_of_each_version_and_answer_once(outbox: Outbox) -> None:
    told: list[dict[str, Any]] = []
    inbox = Inbox(outbox, DESTINATIONS, ven_name="ven-1", observe=told.extend)
    created = datetime(2026, 12, 31, tzinfo=UTC)
    for _ in range(2):
        inbox.take(event(descriptor={"created_date_time": created}))
    version, opt = told
    assert version.pop("received_at") <= version.pop("answered_at")
    assert version == {
        "kind": "openadr_event",
        "ven": "ven-1",
        "event_id": "a",
        "modification_number": 0,
        "signal": "ENERGY_PRICE",
        "status": "far",
        "test_event": False,
        "starts_at": "2027-01-01T00:00:00+00:00",
        "ends_at": "2027-01-01T02:00:00+00:00",
        "intervals": [(3600, 120.0), (3600, 130.0)],
        "created_at": "2026-12-31T00:00:00+00:00",
    }
    assert (opt["kind"], opt["event_id"], opt["opt_type"], opt["reason"]) == ("openadr_opt", "a", "optIn", None)


def test_the_schema_ems_is_told_why_an_event_was_refused(outbox: Outbox) -> None:
    told: list[dict[str, Any]] = []
    Inbox(outbox, DESTINATIONS, observe=told.extend).take(event(signal={"signal_name": "BID_LOAD"}))
    version, opt = told
    assert (version["signal"], version["starts_at"], version["intervals"]) == (None, None, [])
    assert opt["opt_type"] == "optOut"
    assert "BID_LOAD" in opt["reason"]


def test_an_event_is_answered_whether_or_not_the_schema_ems_can_be_told(outbox: Outbox) -> None:
    def full(_: list[dict[str, Any]]) -> None:
        raise OutboxError("the disk is full")

    assert Inbox(outbox, DESTINATIONS, observe=full).take(event()) == "optIn"
