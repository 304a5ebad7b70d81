"""The rules by which the VTN accepts, changes and cancels events."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cariflex.problems import InputError
from cariflex.vtn.events import (
    ConflictError,
    Event,
    EventRequest,
    Interval,
    Opt,
    accepted,
    cancelled,
    distribution,
    event_id_of,
    requested,
    wire_id,
)
from tests.unit.services.openadr_support import OTHER_VEN, VEN, price_body

NOW = datetime(2026, 5, 1, 3, 30, tzinfo=UTC)
START = datetime(2026, 5, 1, 4, 0, tzinfo=UTC)
VENS = (VEN, OTHER_VEN)


def body(**different: Any) -> dict[str, Any]:
    return price_body(START, 120.0, 130.0) | different


def parse(content: dict[str, Any]) -> EventRequest:
    return EventRequest.parse(json.dumps(content).encode())


def put(
    content: dict[str, Any],
    current: Event | None = None,
    live: tuple[Event, ...] = (),
    now: datetime = NOW,
    event_id: str = "a",
) -> Event:
    wanted = requested(event_id, parse(content), current, VENS, now)
    return accepted(wanted, current, live, "CARIFLEX_VTN", now, timedelta(hours=1))


def problems(content: dict[str, Any], **context: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(InputError) as caught:
        put(content, **context)
    return [(problem.field, problem.problem, problem.fix) for problem in caught.value.problems]


def test_a_new_event_begins_with_modification_number_0() -> None:
    event = put(body())
    assert (event.modification_number, event.status(NOW), event.end) == (0, "far", START + timedelta(hours=2))


def test_the_same_again_is_the_same_version() -> None:
    event = put(body())
    assert put(body(), event) is event


def test_the_same_instant_in_another_offset_is_the_same_version() -> None:
    event = put(body())
    assert put(body(start="2026-05-01T00:00:00-04:00"), event) is event


def test_something_else_is_the_next_version_and_keeps_the_date_of_creation() -> None:
    event = put(body())
    later = NOW + timedelta(minutes=1)
    changed = put(body(priority=1), event, now=later)
    assert (changed.modification_number, changed.created_at, changed.modified_at) == (1, NOW, later)


def test_all_means_every_admitted_ven() -> None:
    assert put(body(targets="all")).targets == {VEN, OTHER_VEN}


def test_a_ven_that_is_left_out_is_withdrawn_and_told_so() -> None:
    event = put(body(targets="all"))
    changed = put(body(targets=[VEN]), event)
    assert changed.targets == {VEN}
    assert changed.withdrawn == {OTHER_VEN}
    for ven_id, status in ((VEN, "far"), (OTHER_VEN, "cancelled")):
        (sent,) = distribution("CARIFLEX_VTN", [changed], ven_id, NOW)["events"]
        assert sent.event_descriptor.event_status == status


def test_a_ven_that_comes_back_is_not_withdrawn_any_more() -> None:
    event = put(body(targets="all"))
    event = put(body(targets=[VEN]), event)
    event = put(body(targets="all"), event)
    assert event.targets == {VEN, OTHER_VEN}
    assert event.withdrawn == frozenset()


@pytest.mark.parametrize(
    ("different", "field", "said", "fix"),
    [
        ({"unit": "EUR/kWh"}, "unit", "is not the unit of ENERGY_PRICE", "EUR/MWh"),
        ({"intervals": [{"duration": "PT1H", "value": 12000}]}, "intervals.0.value", "is outside", "-9999 to 9999"),
        ({"intervals": [{"duration": "PT1H", "value": "120"}]}, "intervals.0.value", "valid number", "120.0"),
        ({"intervals": [{"duration": "PT1H", "value": True}]}, "intervals.0.value", "valid number", "120.0"),
        ({"intervals": [{"duration": "PT1H", "value": None}]}, "intervals.0.value", "valid number", "120.0"),
        ({"intervals": [{"duration": "PT30S", "value": 1}]}, "intervals.0.duration", "whole minutes", "PT1H"),
        ({"intervals": [{"duration": "1h", "value": 1}]}, "intervals.0.duration", "ISO 8601", "PT1H"),
        ({"intervals": [{"duration": "PT0S", "value": 1}]}, "intervals.0.duration", "whole minutes", "PT1H"),
        ({"intervals": []}, "intervals", "at least 1", "intervals"),
        ({"intervals": [{"duration": "P1D", "value": 1}] * 32}, "intervals", "more than 31 days", "Split"),
        ({"start": "2026-05-01T00:00:00"}, "start", "timezone", "offset from UTC"),
        ({"start": 1777608000}, "start", "datetime", "ISO 8601"),
        ({"start": "2026-05-01T00:00:00.5-04:00"}, "start", "fractions", "whole seconds"),
        ({"start": "tomorrow"}, "start", "datetime", "ISO 8601"),
        ({"signal_name": "BID_PRICE"}, "signal_name", "ENERGY_PRICE", "one of"),
        ({"targets": ["Cariflex-VEN-009"]}, "targets", "is not a VEN of this VTN", VEN),
        ({"targets": []}, "targets", 'neither "all" nor a list', "VEN ids"),
        ({"targets": "some"}, "targets", 'neither "all" nor a list', "VEN ids"),
        ({"targets": [1]}, "targets", 'neither "all" nor a list', "VEN ids"),
        ({"priority": -1}, "priority", "greater than or equal to 0", "whole number"),
        ({"price": 3}, "price", "is not known", "Remove it"),
        ({"targetz": "all"}, "targetz", "is not known", "targets"),
    ],
)
def test_what_is_wrong_is_said_with_field_and_fix(different: dict[str, Any], field: str, said: str, fix: str) -> None:
    found = problems(body(**different))
    assert any(name == field and said in problem and fix in advice for name, problem, advice in found), found


def test_all_problems_are_named_at_once() -> None:
    content = body(unit="%", targets=["nobody"], intervals=[{"duration": "PT1H", "value": 1e6}])
    assert [field for field, _, _ in problems(content)] == ["unit", "intervals.0.value", "targets"]


def test_not_json_at_all_is_one_problem() -> None:
    with pytest.raises(InputError, match="JSON"):
        EventRequest.parse(b"<xml/>")


def test_a_start_further_back_than_allowed_is_refused() -> None:
    content = body(start="2026-05-01T02:00:00Z", intervals=[{"duration": "PT4H", "value": 1}])
    ((field, said, _),) = problems(content)
    assert (field, said) == ("start", "lies more than PT1H in the past")


def test_a_running_event_can_be_changed_without_moving_its_start() -> None:
    event = put(body())
    later = START + timedelta(minutes=90)
    assert put(body(intervals=[{"duration": "PT3H", "value": 5}]), event, now=later).modification_number == 1


def test_an_event_that_would_be_over_is_refused() -> None:
    assert problems(body(), now=START + timedelta(hours=2))[0][1] == "the event has already ended"


def test_an_unchanged_event_that_is_over_stays_unchanged() -> None:
    event = put(body())
    assert put(body(), event, now=START + timedelta(days=1)) is event


def test_an_event_that_is_over_cannot_be_changed_or_cancelled() -> None:
    event = put(body())
    later = START + timedelta(days=1)
    with pytest.raises(ConflictError, match="completed and stays so"):
        put(body(priority=1, start=(later + timedelta(hours=1)).isoformat()), event, now=later)
    with pytest.raises(ConflictError, match="completed and stays so"):
        cancelled(event, later)


def test_a_cancelled_event_stays_cancelled() -> None:
    event = cancelled(put(body()), NOW)
    assert (event.modification_number, event.status(NOW)) == (1, "cancelled")
    assert cancelled(event, NOW) is event
    with pytest.raises(ConflictError, match=r"cancelled and stays so.*Use a new event id"):
        put(body(), event)


@pytest.mark.parametrize(
    ("different", "overlaps"),
    [
        ({}, True),
        ({"start": "2026-05-01T05:59:00Z"}, True),
        ({"start": "2026-05-01T06:00:00Z"}, False),
        ({"targets": [OTHER_VEN]}, False),
        ({"targets": "all"}, True),
        ({"test_event": True}, False),
        (
            {"signal_name": "LOAD_CONTROL", "unit": "%", "intervals": [{"duration": "PT1H", "value": 50}]},
            False,
        ),
    ],
)
def test_events_of_one_signal_do_not_overlap_for_one_ven(different: dict[str, Any], overlaps: bool) -> None:
    there = put(body(), event_id="there")
    if overlaps:
        with pytest.raises(ConflictError, match=f"overlaps event there of the same signal.*for {VEN}"):
            put(body(**different), live=(there,), event_id="new")
    else:
        put(body(**different), live=(there,), event_id="new")


def test_a_version_does_not_overlap_the_one_it_replaces() -> None:
    event = put(body())
    assert put(body(priority=2), event, live=(event,)).modification_number == 1


def test_a_ven_owes_an_answer_until_it_has_answered_this_version() -> None:
    event = put(body())
    assert event.unanswered_by(VEN)
    assert not event.unanswered_by(OTHER_VEN)
    event = replace(event, opts={VEN: Opt(0, "optIn", NOW)})
    assert not event.unanswered_by(VEN)
    assert put(body(priority=1), event).unanswered_by(VEN)
    assert cancelled(event, NOW).unanswered_by(VEN)


def test_the_opt_of_an_older_version_is_not_shown_as_the_answer() -> None:
    event = replace(put(body()), opts={VEN: Opt(0, "optIn", NOW)})
    assert event.as_dict(NOW)["opts"][VEN]["opt_type"] == "optIn"
    assert put(body(priority=1), event).as_dict(NOW)["opts"] == {VEN: None}


def test_ids_on_the_wire_belong_to_one_ven() -> None:
    assert event_id_of(wire_id("price-1", VEN), VEN) == "price-1"
    assert event_id_of(wire_id("price-1", VEN), OTHER_VEN) is None
    assert event_id_of("price-1", VEN) is None
    assert event_id_of(17, VEN) is None


def test_active_events_go_first_on_the_wire() -> None:
    def at(hours: int, event_id: str) -> Event:
        return put(body(start=(START + timedelta(hours=hours)).isoformat()), event_id=event_id)

    sent = distribution("V", [at(4, "later"), at(2, "next"), at(0, "now")], VEN, START)["events"]
    assert [event.event_descriptor.event_id for event in sent] == [wire_id(i, VEN) for i in ("now", "next", "later")]
    assert [event.event_descriptor.event_status for event in sent] == ["active", "far", "far"]


contents = st.builds(
    body,
    priority=st.integers(0, 2),
    targets=st.sampled_from([[VEN], [OTHER_VEN], "all"]),
    intervals=st.lists(
        st.fixed_dictionaries({"duration": st.sampled_from(["PT15M", "PT1H"]), "value": st.integers(-2, 2)}),
        min_size=1,
        max_size=3,
    ),
)


@given(st.lists(contents, min_size=1, max_size=6))
def test_any_sequence_of_puts_counts_exactly_the_changes(sequence: list[dict[str, Any]]) -> None:
    current: Event | None = None
    changes = 0
    ever: set[str] = set()
    for content in sequence:
        before = current
        current = put(content, current)
        changes += current is not before
        assert put(content, current) is current
        assert current.intervals == tuple(
            Interval(timedelta(minutes=15 if i["duration"] == "PT15M" else 60), float(i["value"]))
            for i in content["intervals"]
        )
        ever |= current.targets
        assert current.targets | current.withdrawn == ever
        assert not current.targets & current.withdrawn
    assert current is not None
    assert current.modification_number == changes - 1
