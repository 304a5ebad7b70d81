"""The servers that bench/vtn.py compares, each in a process of its own.

python -m tests.unit.services.bench_servers {stock,ours,bare} PORT VEN…     serve until killed
                                                                            SIGUSR1 makes an event of 24 h for all VENs
python -m tests.unit.services.bench_servers {poll,answer} VEN               print a poll, or an optIn to that event, as
                                                                            openleadr's client sends it
"""

import asyncio
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "files/services/src"))


from aiohttp import web
from openleadr import OpenADRServer
from openleadr.messaging import create_message

from cariflex.service import collect_rarely, listen
from cariflex.vtn.board import Board
from cariflex.vtn.events import Event, Interval, wire_id
from cariflex.vtn.protocol import Vtn
from cariflex.vtn.store import Registration
from tests.unit.services.openadr_support import PATH, MemoryStore, next_hour, vtn_settings

BARE_ANSWER = b"x" * 656  # as long as the answer to an empty poll


EVENT = "bench"
HOURS, HOUR = 24, timedelta(hours=1)


async def serve_stock(port: int, vens: Sequence[str]) -> None:
    """Serve openleadr as it comes, with VENs that are all registered."""

    async def look_up(ven_id: str) -> dict[str, str]:
        return {"ven_id": ven_id, "registration_id": f"reg-{ven_id}"}

    def opted(ven_id: str, event_id: str, opt_type: str) -> None:
        """Keep nothing: openleadr has noted the answer."""

    server = OpenADRServer(vtn_id="CARIFLEX_VTN", ven_lookup=look_up)
    server.add_handler("on_create_party_registration", lambda _: None)

    def make_event() -> None:
        starts = [next_hour() + n * HOUR for n in range(HOURS)]
        for ven in vens:
            server.add_event(
                ven_id=ven,
                event_id=wire_id(EVENT, ven),
                signal_name="ENERGY_PRICE",
                signal_type="price",
                intervals=[{"dtstart": start, "duration": HOUR, "signal_payload": 0.1} for start in starts],
                callback=opted,
            )

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, make_event)
    await listen(server.app, "127.0.0.1", port)


async def serve_ours(port: int, vens: Sequence[str]) -> None:
    """Serve our VTN with a store in memory: polls never reach the store."""
    settings = vtn_settings(port=port, vens={ven: {"registration_id": f"reg-{ven}"} for ven in vens})
    store = MemoryStore()
    store.registrations = {ven: Registration(ven, f"reg-{ven}", datetime.now(UTC)) for ven in vens}
    board = Board(store, settings.vens)
    await board.refresh()

    def make_event() -> None:
        now = datetime.now(UTC)
        made = Event(EVENT, 0, "ENERGY_PRICE", next_hour(), (Interval(HOUR, 100.0),) * HOURS, frozenset(vens), now, now)
        store.history[EVENT] = [made]
        refreshing.add(asyncio.create_task(board.refresh()))

    refreshing: set[asyncio.Task[None]] = set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, make_event)
    collect_rarely()
    await listen(Vtn(settings, board, store).app, "127.0.0.1", port)


async def serve_bare(port: int, _vens: Sequence[str]) -> None:
    """Serve what aiohttp alone needs to read such a request and to answer it."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=BARE_ANSWER, content_type="application/xml")

    app = web.Application()
    app.add_routes([web.post(f"{PATH}/OadrPoll", handler)])
    await listen(app, "127.0.0.1", port)


SERVERS: Mapping[str, Callable[[int, Sequence[str]], Awaitable[Any]]] = {
    "stock": serve_stock,
    "ours": serve_ours,
    "bare": serve_bare,
}


async def forever(name: str, port: int, vens: Sequence[str]) -> None:
    """Serve until killed."""
    await SERVERS[name](port, vens)
    await asyncio.Event().wait()


def main(name: str, *arguments: str) -> None:
    """Do what the command line asks for."""
    if name == "poll":
        sys.stdout.write(create_message("oadrPoll", ven_id=arguments[0]))
        return
    if name == "answer":
        ok = {"response_code": 200, "response_description": "OK", "request_id": "r"}
        event = {"event_id": wire_id(EVENT, arguments[0]), "modification_number": 0, "opt_type": "optIn"}
        answer = create_message("oadrCreatedEvent", ven_id=arguments[0], response=ok, event_responses=[ok | event])
        sys.stdout.write(answer)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one descriptor for each VEN
    asyncio.run(forever(name, int(arguments[0]), arguments[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
