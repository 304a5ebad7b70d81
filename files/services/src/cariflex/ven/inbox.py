"""Understanding an event and deciding the answer. Never raises for what a VTN sends, and never waits for a network."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import Counter

from cariflex.openadr.signals import SignalError, read_values
from cariflex.ven.grid import Stretch
from cariflex.ven.outbox import Destination, OptType, Outbox, OutboxError, ReceivedEvent

log = logging.getLogger(__name__)

EVENTS = Counter("cariflex_ven_events_total", "Versions of events received and answered.", ["opt_type"])


class Inbox:
    """Takes events in: understood ones go to the outbox and are answered optIn, others optOut."""

    def __init__(
        self, outbox: Outbox, destinations: Mapping[str, Destination], queued: Callable[[], None] = lambda: None
    ) -> None:
        """`queued` is called when the outbox may have something new."""
        self._outbox = outbox
        self._destinations = destinations
        self._queued = queued
        self.trouble: str | None = None

    def take(self, event: Mapping[str, Any]) -> OptType | None:
        """Answer one event as openleadr parses it.

        Returns:
            The answer, or None when it could not be stored: without an answer the VTN sends the event again.
        """
        trace: dict[str, Any] = {}
        try:
            descriptor = event["event_descriptor"]
            trace = {key: descriptor[key] for key in ("event_id", "modification_number")}
            received = understand(event)
            destination = self._destinations.get(received.signal_name)
            if destination is None:
                raise SignalError(f"no sensor is set for signal {received.signal_name}")
            known = self._outbox.known(received.event_id, received.content())
            opt_type = known or self._outbox.accept(received, destination)
            self.trouble = None
        except OutboxError as error:
            self.trouble = str(error)
            log.error("event not stored", extra=trace | {"reason": str(error)})
            return None
        except SignalError as error:
            log.warning("event refused", extra=trace | {"reason": str(error)})
            known, opt_type = None, "optOut"
        except Exception:  # whatever a VTN sends, the VEN answers and goes on
            log.exception("event not understood", extra=trace)
            known, opt_type = None, "optOut"
        if not known:
            EVENTS.labels(opt_type).inc()
            log.info("event answered", extra=trace | {"opt_type": opt_type})
            self._queued()
        return opt_type


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
    return ReceivedEvent(
        event_id=str(descriptor["event_id"]),
        modification_number=int(descriptor["modification_number"]),
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
    stretches = []
    position = int(start.timestamp())
    for interval, value in zip(intervals, values, strict=True):
        duration = interval.get("duration")
        if not isinstance(duration, timedelta) or duration < timedelta(seconds=1):
            raise SignalError(f"interval duration {duration!r} is not understood")
        stretches.append(Stretch(position, position + int(duration.total_seconds()), value))
        position = stretches[-1].end
    if not stretches:
        raise SignalError("the event has no intervals")
    return stretches
