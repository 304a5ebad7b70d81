"""Understanding an event and deciding the answer. Never raises for what a VTN sends, and never waits for a network."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from prometheus_client import Counter

from cariflex.openadr.signals import SignalError, read_values
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Answer, Destination, OptType, Outbox, OutboxError, ReceivedEvent
from cariflex.ven.policy import Rule, refusal
from cariflex.ven.trace import trace

log = logging.getLogger(__name__)

EVENTS = Counter("cariflex_ven_events_total", "Versions of events received and answered.", ["opt_type"])


# Bounds against a VTN that means no good: without the second one event could fill the disk with cells.
LONGEST_ID = 1000
LONGEST_REASON = 2000
LONGEST_SECONDS = 366 * 86400

# What the CEM follows by itself: these need no sensor.
CEM_SIGNALS = frozenset({"LOAD_CONTROL", "SIMPLE", "LOAD_DISPATCH", "CHARGE_STATE"})


class Inbox:
    """Takes events in: those that the site takes part in go to the outbox and are answered optIn, others optOut."""

    def __init__(
        self,
        outbox: Outbox,
        destinations: Mapping[str, Destination],
        queued: Callable[[], None] = lambda: None,
        rules: Sequence[Rule] = (),
        timezone: tzinfo = UTC,
        ven_name: str = "",
        observe: Callable[[list[dict[str, Any]]], None] = lambda _: None,
    ) -> None:
        """Make an inbox.

        Args:
            outbox: where events and values are kept.
            destinations: the sensor of each signal.
            queued: called when the outbox may have something new.
            rules: what is refused.
            timezone: of the rules' times.
            ven_name: for the log.
            observe: takes what the schema `ems` is to know of events and answers.
        """
        self._ven_name = ven_name
        self._observe = observe
        self._outbox = outbox
        self._destinations = destinations
        self._queued = queued
        self._rules = rules
        self._timezone = timezone
        self.trouble: str | None = None

    def take(self, event: Mapping[str, Any]) -> OptType | None:
        """Answer one event as openleadr parses it.

        Returns:
            The answer, or None when it could not be stored: without an answer the VTN sends the event again.
        """
        arrived = datetime.now(UTC)
        ids: dict[str, Any] = {}
        reason: str | None = None
        received: ReceivedEvent | None = None
        opt_type: OptType = "optOut"
        known: OptType | None = None
        try:
            descriptor = event["event_descriptor"]
            ids = trace(descriptor["event_id"], descriptor["modification_number"], self._ven_name)
            try:
                received = understand(event)
                if received.signal_name not in CEM_SIGNALS | self._destinations.keys():
                    raise SignalError(f"no sensor is set for signal {received.signal_name}")
            except SignalError as error:
                reason = str(error)
                self._outbox.refuse(
                    str(descriptor["event_id"]), int(descriptor["modification_number"]), reason, self._destinations
                )
            else:
                known = self._outbox.known(received.event_id, received.content())
                reason = self._judge(received)
                opt_type = known or self._outbox.accept(received, self._destinations, reason)
            self.trouble = None
        except OutboxError as error:
            self.trouble = str(error)
            log.error("event not stored", extra=ids | {"reason": str(error)})
            return None
        except Exception:  # whatever a VTN sends, the VEN answers and goes on
            reason = "it is not understood"
            log.exception("event not understood", extra=ids)
        if not known:
            EVENTS.labels(opt_type).inc()
            level, why = (logging.INFO, {}) if opt_type == "optIn" else (logging.WARNING, {"reason": reason})
            log.log(level, "event answered", extra=ids | {"opt_type": opt_type} | why)
            self._record(event, received, arrived, opt_type, reason)
            self._queued()
        return opt_type

    def _record(
        self,
        event: Mapping[str, Any],
        received: ReceivedEvent | None,
        arrived: datetime,
        opt_type: OptType,
        reason: str | None,
    ) -> None:
        """Tell the schema `ems` of a version and its answer; the answer does not depend on it."""
        try:
            descriptor = event["event_descriptor"]
            version = self._version(descriptor["event_id"], descriptor["modification_number"])
            created, answered = descriptor.get("created_date_time"), datetime.now(UTC)
            facts = {
                "signal": received and received.signal_name,
                "status": str(descriptor["event_status"]),
                "test_event": bool(descriptor.get("test_event", False)),
                "starts_at": received and _moment(received.start),
                "ends_at": received and _moment(received.end),
                "intervals": [(s.end - s.start, s.value) for s in received.stretches] if received else [],
                "created_at": created.isoformat() if isinstance(created, datetime) and created.tzinfo else None,
                "received_at": arrived.isoformat(),
                "answered_at": answered.isoformat(),
            }
            self._observe(
                [{"kind": "openadr_event", **version, **facts}, self._opt(version, answered, opt_type, reason)]
            )
        except Exception:  # nothing that a VTN sends may stand in the way of an answer
            log.exception("event not reported to the schema ems")

    def _version(self, event_id: Any, number: Any) -> dict[str, Any]:
        return {"ven": self._ven_name, "event_id": str(event_id)[:LONGEST_ID], "modification_number": int(number)}

    @staticmethod
    def _opt(version: dict[str, Any], time: datetime, opt_type: OptType, reason: str | None) -> dict[str, Any]:
        return {
            "kind": "openadr_opt",
            **version,
            "time": time.isoformat(),
            "opt_type": opt_type,
            "reason": reason[:LONGEST_REASON] if reason else None,
        }

    def reconsider(self) -> list[Answer]:
        """Judge the stored events by the present rules; the answers that changed.

        Raises:
            OutboxError: nothing was stored.
        """
        changed = self._outbox.reconsider(self._judge, self._destinations)
        for answer in changed:
            EVENTS.labels(answer.opt_type).inc()
            ids = trace(answer.event_id, answer.modification_number, self._ven_name)
            log.info("event judged again", extra=ids | {"opt_type": answer.opt_type, "reason": answer.reason})
        if changed:
            self._record_again(changed)
            self._queued()
        return changed

    def _record_again(self, changed: Sequence[Answer]) -> None:
        now = datetime.now(UTC)
        versions = [self._version(answer.event_id, answer.modification_number) for answer in changed]
        try:
            self._observe(
                [
                    self._opt(version, now, answer.opt_type, answer.reason)
                    for version, answer in zip(versions, changed, strict=True)
                ]
            )
        except OutboxError as error:
            log.warning("answers not reported to the schema ems", extra={"reason": str(error)})

    def untold(self) -> list[Answer]:
        """The answers that changed and that the VTN does not know."""
        return self._outbox.untold()

    def told(self, answer: Answer) -> None:
        """The VTN knows an answer."""
        self._outbox.told(answer.event_id)
        ids = trace(answer.event_id, answer.modification_number, self._ven_name)
        log.info("event answered again", extra=ids | {"opt_type": answer.opt_type, "reason": answer.reason})

    def _judge(self, event: ReceivedEvent) -> str | None:
        return refusal(event.signal_name, event.stretches, self._rules, self._timezone)


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def understand(event: Mapping[str, Any]) -> ReceivedEvent:
    """Turn openleadr's dictionary into what the VEN keeps.

    Raises:
        SignalError: it has not exactly one signal that we can turn into values of a sensor.
    """
    descriptor, period = event["event_descriptor"], event["active_period"]
    signals = event["event_signals"]
    if isinstance(signals, Mapping):  # openleadr's form when the event also has a baseline
        signals = signals["event_signals"]
    if len(signals) != 1:
        raise SignalError(f"the event has {len(signals)} signals; one is understood")
    signal, values = read_values(signals[0])
    stretches = _stretches(period["dtstart"], signals[0]["intervals"], values)
    cancelled = descriptor["event_status"] == "cancelled"
    test_event = bool(descriptor.get("test_event", False))
    event_id, number = str(descriptor["event_id"]), int(descriptor["modification_number"])
    if len(event_id) > LONGEST_ID or not 0 <= number < 2**31:
        raise SignalError(f"event id {event_id[:50]!r} or modification number {number} is not understood")
    if stretches[-1].end - stretches[0].start > LONGEST_SECONDS:
        raise SignalError(f"the event lasts longer than {LONGEST_SECONDS // 86400} days")
    return ReceivedEvent(
        event_id=event_id,
        modification_number=number,
        signal_name=signal.name,
        start=stretches[0].start,
        end=stretches[-1].end,
        stretches=() if cancelled or test_event else tuple(stretches),
        cancelled=cancelled,
        test_event=test_event,
    )


def _stretches(start: Any, intervals: list[Mapping[str, Any]], values: list[float]) -> list[Stretch]:
    """Lay the intervals one after the other from the event's start, as OpenADR 2.0b defines them."""
    if not isinstance(start, datetime) or start.tzinfo is None:
        raise SignalError(f"start {start!r} is not a time in UTC")
    if not 2000 <= start.year < 2200:
        raise SignalError(f"start {start.isoformat()} is not in our time")
    stretches = []
    position = int(start.timestamp())
    for interval, value in zip(intervals, values, strict=True):
        duration = interval.get("duration")
        if not isinstance(duration, timedelta) or not 1 <= duration.total_seconds() <= LONGEST_SECONDS:
            raise SignalError(f"interval duration {duration!r} is not understood")
        stretches.append(Stretch(position, position + int(duration.total_seconds()), value))
        position = stretches[-1].end
    if not stretches:
        raise SignalError("the event has no intervals")
    return stretches
