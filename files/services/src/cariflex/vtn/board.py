"""What this VTN process knows at the moment: the store's snapshot, kept fresh, and what it has seen of each VEN."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

from cariflex.vtn.events import Event, Opt
from cariflex.vtn.store import Registration, Snapshot, Store, StoreError

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 5.0


def utc_now() -> datetime:
    """The time, to the microsecond, as PostgreSQL keeps it."""
    return datetime.now(UTC)


class Board:
    """Answers polls from memory, so that they cost no query and go on while the database is away."""

    def __init__(self, store: Store, ven_ids: Collection[str], clock: Callable[[], datetime] = utc_now) -> None:
        self.clock = clock
        self.ven_ids = frozenset(ven_ids)
        self.last_poll: dict[str, datetime] = {}
        self.trouble: str | None = "the store has not been read yet"
        self.loaded = asyncio.Event()
        self._store = store
        self._snapshot = Snapshot({}, {})
        self._pending_until: dict[str, datetime] = {}
        self.news = asyncio.Event()  # set once, with the next change; then there is another one

    def tell(self) -> None:
        """Wake whoever waits for news."""
        self.news.set()
        self.news = asyncio.Event()

    def registration(self, ven_id: str) -> Registration | None:
        """The registration of an admitted VEN."""
        return self._snapshot.registrations.get(ven_id) if ven_id in self.ven_ids else None

    def event(self, event_id: str) -> Event | None:
        """A live event."""
        return self._snapshot.events.get(event_id)

    def live(self) -> list[Event]:
        """The events that have not ended, also cancelled ones."""
        now = self.clock()
        return [event for event in self._snapshot.events.values() if event.end > now]

    def for_ven(self, ven_id: str) -> list[Event]:
        """The events a VEN should know: all that are live, and cancellations until the VEN has answered them."""
        found = []
        for event in self.live():
            gone = event.cancelled or ven_id in event.withdrawn
            if event.unanswered_by(ven_id) or (ven_id in event.targets and not gone):
                found.append(event)
        return found

    def pending(self, ven_id: str) -> bool:
        """Whether there is an event that has not ended and that the VEN has not answered; asked with every poll."""
        until = self._pending_until.get(ven_id)
        return until is not None and until > self.clock()

    def registered(self, registration: Registration) -> None:
        """Take over a registration that the store has kept."""
        self._snapshot.registrations[registration.ven_id] = registration

    def deregistered(self, ven_id: str) -> None:
        """Take over that the store has forgotten a registration."""
        self._snapshot.registrations.pop(ven_id, None)

    def answered(self, event_id: str, ven_id: str, opt: Opt) -> None:
        """Take over an answer that the store has kept."""
        if event := self._snapshot.events.get(event_id):
            self._snapshot.events[event_id] = replace(event, opts={**event.opts, ven_id: opt})
            ends = [other.end for other in self._snapshot.events.values() if other.unanswered_by(ven_id)]
            if ends:
                self._pending_until[ven_id] = max(ends)
            else:
                self._pending_until.pop(ven_id, None)
            self.tell()

    async def refresh(self) -> None:
        """Read the store; raises StoreError."""
        self._snapshot = await self._store.snapshot(self.clock())
        self._pending_until = {
            ven_id: event.end
            for event in sorted(self._snapshot.events.values(), key=lambda event: event.end)
            for ven_id in event.targets | event.withdrawn
            if event.unanswered_by(ven_id)
        }
        self.trouble = None
        self.loaded.set()
        self.tell()

    async def follow(self) -> None:
        """Open the store and keep up with it for ever, however often the database goes away."""
        pause = 0.5
        while True:
            try:
                await self._store.open(self.ven_ids)
                async for _ in self._store.changes():
                    await self.refresh()
                    pause = 0.5
            except StoreError as error:
                trouble = f"the store cannot be reached: {error}"
                if trouble != self.trouble:
                    log.warning("the store cannot be reached", extra={"reason": str(error)})
                self.trouble = trouble
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
