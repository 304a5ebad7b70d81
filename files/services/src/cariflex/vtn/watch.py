"""Watching events: a stream of server-sent events that says each event once, and again whenever it changes."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web

from cariflex.vtn.board import Board
from cariflex.vtn.events import Event
from cariflex.vtn.store import Store, StoreError

LOOK_SECONDS = 5.0  # an event also changes by time; a stream that says nothing for this long gets a comment
MAX_WATCHERS = 100


class Watchers:
    """The streams that are open."""

    def __init__(self, board: Board, store: Store) -> None:
        self._board = board
        self._store = store
        self._open = 0
        self._stopping = False

    async def stop(self, _app: web.Application) -> None:
        """End all streams, so that the service need not wait for them."""
        self._stopping = True
        self._board.tell()

    async def watch(self, request: web.Request, only: Event | None) -> web.StreamResponse:
        """Answer with a stream that lasts until the watcher goes or the service stops.

        Args:
            request: the watcher's.
            only: the event to watch; None: all that have not ended.
        """
        if self._open >= MAX_WATCHERS:
            raise web.HTTPTooManyRequests(reason=f"{MAX_WATCHERS} streams are open already.")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._open += 1
        try:
            with suppress(ConnectionError):  # the watcher has gone
                await stream.prepare(request)
                await self._tell(stream, only)
        finally:
            self._open -= 1
        return stream

    async def _tell(self, stream: web.StreamResponse, only: Event | None) -> None:
        told: dict[str, str] = {} if only is None else {only.event_id: ""}
        while not self._stopping:
            news = self._board.news  # taken before looking, so that nothing comes in between unseen
            live = {event.event_id: event for event in self._board.live()}
            if only is not None:
                live = {event_id: event for event_id, event in live.items() if event_id == only.event_id}
            now = self._board.clock()
            for event in [*sorted(live.values(), key=lambda event: event.start), *await self._ended(told, live)]:
                text = json.dumps(event.as_dict(now))
                if told.get(event.event_id) != text:
                    told[event.event_id] = text
                    await stream.write(f"event: event\ndata: {text}\n\n".encode())
            if only is None:
                told = {event_id: text for event_id, text in told.items() if event_id in live}
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await news.wait()
            except TimeoutError:
                await stream.write(b": nothing new\n\n")  # also finds out whether the watcher has gone

    async def _ended(self, told: Mapping[str, str], live: Mapping[str, Event]) -> list[Event]:
        """What was told and has ended since: it is told a last time."""
        try:
            found = [await self._store.event(event_id) for event_id in told if event_id not in live]
        except StoreError:
            return []
        return [event for event in found if event is not None]
