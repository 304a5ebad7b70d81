"""The VEN's memory: nothing that was answered is lost, nothing is queued twice."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import _STEPS, Asked, Destination, DeviceState, Outbox, OutboxError, Post, ReceivedEvent
from tests.unit.services.openadr_support import ENVIRONMENT

HOUR = 3600
T0 = 1_800_000_000  # a full hour
PRICE = Destination(84, "EUR/MWh", HOUR)
LOAD = Destination(86, "%", 900, 100.0)
SENSORS = {"ENERGY_PRICE": PRICE, "LOAD_CONTROL": LOAD}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = float(T0 - 86400)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Outbox:
    return Outbox(tmp_path, clock)


def prices(*values: float, event_id: str = "a", number: int = 0, start: int = T0) -> ReceivedEvent:
    stretches = tuple(Stretch(start + n * HOUR, start + (n + 1) * HOUR, value) for n, value in enumerate(values))
    return ReceivedEvent(event_id, number, "ENERGY_PRICE", start, start + len(values) * HOUR, stretches)


def cancelled(event: ReceivedEvent) -> ReceivedEvent:
    return replace(event, modification_number=event.modification_number + 1, stretches=(), cancelled=True)


def drain(outbox: Outbox) -> list[Post]:
    posts = []
    while post := outbox.next():
        posts.append(post)
        outbox.delivered(post)
    return posts


def test_an_event_becomes_one_post_per_run(outbox: Outbox) -> None:
    assert outbox.accept(prices(1.0, 2.0), SENSORS) == "optIn"
    (post,) = drain(outbox)
    assert (post.sensor, post.unit, post.start, post.resolution, post.values) == (84, "EUR/MWh", T0, HOUR, (1.0, 2.0))


def test_the_same_version_again_is_answered_and_queues_nothing(outbox: Outbox) -> None:
    for _ in range(3):
        assert outbox.accept(prices(1.0), SENSORS) == "optIn"
    assert len(drain(outbox)) == 1


def test_a_version_is_still_known_after_a_restart(tmp_path: Path, outbox: Outbox) -> None:
    outbox.accept(prices(1.0), SENSORS)
    drain(outbox)
    outbox.close()
    again = Outbox(tmp_path)
    again.accept(prices(1.0), SENSORS)
    assert drain(again) == []


def test_a_modification_brings_its_values_with_a_later_belief(outbox: Outbox) -> None:
    outbox.accept(prices(1.0, 2.0), SENSORS)
    outbox.accept(prices(1.0, 3.0, number=1), SENSORS)
    first, second = drain(outbox)
    assert second.values == (1.0, 3.0)
    assert second.belief > first.belief


def test_other_content_under_an_old_number_counts_too(outbox: Outbox) -> None:
    """After a restore from a backup the VTN may count again from an earlier number."""
    outbox.accept(prices(1.0, number=5), SENSORS)
    outbox.accept(prices(9.0, number=2), SENSORS)
    assert [post.values for post in drain(outbox)] == [(1.0,), (9.0,)]


def test_belief_times_of_a_sensor_never_repeat(outbox: Outbox, clock: Clock) -> None:
    for number in range(5):
        outbox.accept(prices(float(number), number=number), SENSORS)
    clock.now -= 100  # the clock is set back
    outbox.accept(prices(9.0, number=6), SENSORS)
    beliefs = [post.belief for post in drain(outbox)]
    assert beliefs == sorted(set(beliefs))


def test_a_cancelled_limit_is_replaced_by_the_neutral_value(outbox: Outbox) -> None:
    event = ReceivedEvent("l", 0, "LOAD_CONTROL", T0, T0 + HOUR, (Stretch(T0, T0 + HOUR, 40.0),))
    outbox.accept(event, SENSORS)
    outbox.accept(cancelled(event), SENSORS)
    assert [post.values for post in drain(outbox)] == [(40.0,) * 4, (100.0,) * 4]


def test_a_cancelled_price_is_taken_back_where_no_other_event_gives_one(outbox: Outbox) -> None:
    outbox.accept(prices(1.0, 2.0), SENSORS)
    outbox.accept(prices(3.0, event_id="b"), SENSORS)
    outbox.accept(cancelled(prices(1.0, 2.0)), SENSORS)
    *_, taken_back, other = drain(outbox)
    assert taken_back.withdraws
    assert (taken_back.start, taken_back.values) == (T0 + HOUR, (None,))
    assert (other.start, other.values) == (T0, (3.0,))


def test_an_event_that_moves_touches_nothing_between_its_times(outbox: Outbox) -> None:
    """What other events brought there may be forgotten here, and is still in FlexMeasures."""
    outbox.accept(prices(1.0), SENSORS)
    outbox.accept(prices(1.0, number=1, start=T0 + 5 * HOUR), SENSORS)
    posts = drain(outbox)[1:]
    assert [(post.start, post.values) for post in posts] == [(T0, (None,)), (T0 + 5 * HOUR, (1.0,))]


def test_an_event_that_changes_its_signal_is_corrected_in_both_sensors(outbox: Outbox) -> None:
    limit = ReceivedEvent("a", 0, "LOAD_CONTROL", T0, T0 + 900, (Stretch(T0, T0 + 900, 40.0),))
    outbox.accept(limit, SENSORS)
    outbox.accept(prices(1.0, number=1), SENSORS)
    assert [(post.sensor, post.values) for post in drain(outbox)[1:]] == [(86, (100.0,)), (84, (1.0,))]


def test_an_event_that_is_opted_out_of_holds_nothing(outbox: Outbox) -> None:
    event = ReceivedEvent("l", 0, "LOAD_CONTROL", T0, T0 + HOUR, (Stretch(T0, T0 + HOUR, 40.0),))
    assert outbox.accept(event, SENSORS, "maintenance") == "optOut"
    assert outbox.asked("LOAD_CONTROL", T0) == []
    assert drain(outbox) == []
    assert outbox.accept(event, SENSORS, "maintenance") == "optOut"
    assert [(answer.event_id, answer.reason) for answer in outbox.opted_out()] == [("l", "maintenance")]


def test_a_version_that_is_opted_out_of_or_not_understood_ends_the_one_before(outbox: Outbox) -> None:
    event = ReceivedEvent("l", 0, "LOAD_CONTROL", T0, T0 + HOUR, (Stretch(T0, T0 + HOUR, 40.0),))
    outbox.accept(event, SENSORS)
    assert outbox.accept(replace(event, modification_number=1), SENSORS, "maintenance") == "optOut"
    outbox.accept(replace(event, modification_number=2), SENSORS)
    outbox.refuse("l", 3, "no such type", SENSORS)
    assert [post.values[0] for post in drain(outbox)] == [40.0, 100.0, 40.0, 100.0]
    assert outbox.asked("LOAD_CONTROL", T0) == []
    outbox.refuse("l", 3, "no such type", SENSORS)
    outbox.refuse("unknown", 0, "no such type", SENSORS)
    assert drain(outbox) == []


def test_other_rules_are_applied_to_the_events_that_live(outbox: Outbox, clock: Clock) -> None:
    first, second = prices(1.0), prices(2.0, event_id="b", start=T0 + HOUR)
    outbox.accept(first, SENSORS)
    outbox.accept(second, SENSORS, "maintenance")
    outbox.accept(cancelled(prices(3.0, event_id="c", start=T0 + 2 * HOUR)), SENSORS)
    drain(outbox)
    changed = outbox.reconsider(lambda event: "strike" if event.event_id == "a" else None, SENSORS)
    assert [(a.event_id, a.opt_type, a.reason) for a in changed] == [("a", "optOut", "strike"), ("b", "optIn", None)]
    assert [(post.start, post.values) for post in drain(outbox)] == [(T0, (None,)), (T0 + HOUR, (2.0,))]
    assert outbox.known("a", first.content()) == "optOut"
    assert outbox.untold() == changed
    outbox.told("a")
    assert [answer.event_id for answer in outbox.untold()] == ["b"]
    clock.now = T0 + 5 * HOUR
    assert outbox.reconsider(lambda _: "late", SENSORS) == []


def test_a_value_that_was_refused_does_not_come_back_after_it_was_taken_back(outbox: Outbox, clock: Clock) -> None:
    outbox.accept(prices(1.0), SENSORS)
    refused = outbox.next()
    assert refused is not None
    outbox.again(refused, 60, "422", aside=True)
    outbox.accept(cancelled(prices(1.0)), SENSORS)
    assert [post.withdraws for post in drain(outbox)] == [True]
    clock.now += 61
    assert drain(outbox) == []


def test_a_cancellation_of_an_unknown_event_brings_nothing(outbox: Outbox) -> None:
    assert outbox.accept(cancelled(prices(1.0)), SENSORS) == "optIn"
    assert drain(outbox) == []


def test_a_shortened_limit_frees_the_rest(outbox: Outbox) -> None:
    long = ReceivedEvent("l", 0, "LOAD_CONTROL", T0, T0 + 2 * HOUR, (Stretch(T0, T0 + 2 * HOUR, 40.0),))
    short = ReceivedEvent("l", 1, "LOAD_CONTROL", T0, T0 + HOUR, (Stretch(T0, T0 + HOUR, 40.0),))
    outbox.accept(long, SENSORS)
    outbox.accept(short, SENSORS)
    assert drain(outbox)[1].values == (40.0,) * 4 + (100.0,) * 4


def test_two_events_that_share_a_cell_are_averaged_in_it(outbox: Outbox) -> None:
    half = T0 + HOUR // 2
    outbox.accept(ReceivedEvent("a", 0, "ENERGY_PRICE", T0, half, (Stretch(T0, half, 10.0),)), SENSORS)
    outbox.accept(ReceivedEvent("b", 0, "ENERGY_PRICE", half, T0 + HOUR, (Stretch(half, T0 + HOUR, 30.0),)), SENSORS)
    assert [post.values for post in drain(outbox)] == [(10.0,), (20.0,)]


def test_values_leave_in_the_order_in_which_they_came(outbox: Outbox) -> None:
    for number in range(10):
        outbox.accept(prices(float(number), event_id=f"e{number}", start=T0 + number * HOUR), SENSORS)
    assert [post.values[0] for post in drain(outbox)] == [float(n) for n in range(10)]


def test_the_oldest_value_waits_and_the_others_behind_it(outbox: Outbox, clock: Clock) -> None:
    outbox.accept(prices(1.0), SENSORS)
    outbox.accept(prices(2.0, event_id="b", start=T0 + HOUR), SENSORS)
    first = outbox.next()
    assert first is not None
    outbox.again(first, 30, "FlexMeasures is away")
    assert outbox.next() is None
    assert outbox.seconds_to_next() == pytest.approx(30)
    clock.now += 31
    assert [post.values for post in drain(outbox)] == [(1.0,), (2.0,)]


def test_a_refused_value_lets_the_others_go_first_and_is_not_forgotten(outbox: Outbox, clock: Clock) -> None:
    outbox.accept(prices(1.0), SENSORS)
    outbox.accept(prices(2.0, event_id="b", start=T0 + HOUR), SENSORS)
    refused = outbox.next()
    assert refused is not None
    outbox.again(refused, 60, "422: no such unit", aside=True)
    assert [post.values for post in drain(outbox)] == [(2.0,)]
    state = outbox.state()
    assert (state.waiting, state.aside) == (1, 1)
    assert state.problems == ["event a, sensor 84: 422: no such unit"]
    clock.now += 61
    assert [post.values for post in drain(outbox)] == [(1.0,)]


def test_the_age_of_the_oldest_value_is_known(outbox: Outbox, clock: Clock) -> None:
    assert outbox.state().oldest_seconds == 0
    outbox.accept(prices(1.0), SENSORS)
    clock.now += 42
    assert outbox.state().oldest_seconds == pytest.approx(42)


def test_events_that_ended_long_ago_are_forgotten_and_their_values_are_not(outbox: Outbox, clock: Clock) -> None:
    outbox.accept(prices(1.0), SENSORS)
    clock.now = T0 + 30 * 86400
    outbox.accept(prices(2.0, event_id="b", start=T0 + 31 * 86400), SENSORS)
    assert outbox.known("a", prices(1.0).content()) is None
    assert len(drain(outbox)) == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match=r"missing/outbox\.sqlite cannot be used.*must be writable"):
        Outbox(tmp_path / "missing")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"this is not a database" * 100)
    with pytest.raises(OutboxError, match="damaged file can be moved away"):
        Outbox(tmp_path)


def test_a_full_disk_stores_nothing_and_says_so(outbox: Outbox) -> None:
    outbox._connection.execute("PRAGMA max_page_count = 1")  # SQLite's way to a full disk
    with pytest.raises(OutboxError, match="full"):
        outbox.accept(prices(*range(3000)), SENSORS)
    outbox._connection.execute("PRAGMA max_page_count = 100000")
    assert drain(outbox) == []
    assert outbox.accept(prices(*range(3000)), SENSORS) == "optIn"


WRITER = """
    import sys
    from pathlib import Path
    from cariflex.ven.grid import Stretch
    from cariflex.ven.outbox import Destination, DeviceState, Outbox, ReceivedEvent

    outbox = Outbox(Path(sys.argv[1]))
    for n in range(100000):
        start = 1_800_000_000 + n * 3600
        stretch = Stretch(start, start + 3600, float(n))
        event = ReceivedEvent(f"e{n}", 0, "ENERGY_PRICE", start, start + 3600, (stretch,))
        outbox.accept(event, {"ENERGY_PRICE": Destination(84, "EUR/MWh", 3600)})
        print(n, flush=True)
"""


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    """A writer is killed in the middle of its work: all that it had answered is there, once and in order."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    answered = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            answered = int(line) + 1
            if answered >= 20:
                time.sleep(0.01)
                os.kill(writer.pid, signal.SIGKILL)
                break
        answered = max([answered, *(int(line) + 1 for line in writer.stdout if line.endswith("\n"))])
    values = [post.values[0] for post in drain(Outbox(tmp_path))]
    assert len(values) >= answered
    assert values == [float(n) for n in range(len(values))]


def test_every_commit_reaches_the_disk(outbox: Outbox) -> None:
    """What kill -9 cannot show and a power cut would: the log is synchronised on each commit."""
    pragma = outbox._connection.execute
    assert pragma("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert pragma("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_another_process_sees_the_events_and_queues_values_of_its_own(tmp_path: Path, outbox: Outbox) -> None:
    """What the CEM does: it has the file open beside the VEN."""
    beside = Outbox(tmp_path, Clock())
    version = beside.version()
    assert beside.version() == version
    outbox.accept(replace(prices(50.0), signal_name="LOAD_CONTROL"), SENSORS)
    assert beside.version() != version
    assert beside.asked("LOAD_CONTROL", T0) == [Asked(T0, T0 + HOUR, 50.0, "a")]
    assert beside.asked("LOAD_CONTROL", T0 + HOUR) == []
    drain(outbox)
    beside.queue("s2:battery_01", Destination(51, "kWh", 300), T0, (48.5,))
    (post,) = drain(outbox)
    assert (post.event_id, post.sensor, post.unit, post.values) == ("s2:battery_01", 51, "kWh", (48.5,))
    outbox.accept(replace(cancelled(prices(50.0)), signal_name="LOAD_CONTROL"), SENSORS)
    assert beside.asked("LOAD_CONTROL", T0) == []
    beside.close()


def test_the_cem_tells_the_state_of_its_devices(tmp_path: Path, outbox: Outbox) -> None:
    beside = Outbox(tmp_path, Clock())
    beside.report_states({"battery_01": DeviceState(12.5, 48.0, True, T0)})
    beside.report_states({"battery_01": DeviceState(None, 48.5, False, T0 + 1)})
    beside.report_states({"ev_01": DeviceState(-3.0, None, True, T0)})
    beside.close()
    assert outbox.states() == {
        "battery_01": DeviceState(None, 48.5, False, T0 + 1),
        "ev_01": DeviceState(-3.0, None, True, T0),
    }
    assert outbox._connection.execute("PRAGMA synchronous").fetchone()[0] == 2, "events are still synchronised"


def test_a_file_of_the_first_version_keeps_its_values(tmp_path: Path) -> None:
    """What is waiting survives an upgrade of the VEN."""
    with sqlite3.connect(tmp_path / "outbox.sqlite") as old:
        for statement in _STEPS[0]:
            old.execute(statement)
        old.execute("PRAGMA user_version = 1")
        old.execute(
            "INSERT INTO post VALUES (1, 'a', 0, 84, 'EUR/MWh', ?, 3600, '[1.0]', ?, 0.0, 0.0, 0, 0, NULL)", (T0, T0)
        )
    old.close()
    outbox = Outbox(tmp_path)
    outbox.report_states({"battery_01": DeviceState(1.0, 2.0, True, T0)})
    assert [post.values for post in drain(outbox)] == [(1.0,)]
