"""Stand-ins for PostgreSQL and FlexMeasures, and a VTN and a VEN over loopback, shared by the tests of the services."""

import asyncio
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from pydantic import SecretStr

from cariflex.openadr.incoming import SentReport
from cariflex.openadr.tls import server_context
from cariflex.service import listen
from cariflex.ven import session as session_module
from cariflex.ven.inbox import Inbox
from cariflex.ven.outbox import Destination, Outbox
from cariflex.ven.policy import Rule
from cariflex.ven.sender import Sender
from cariflex.ven.session import Session
from cariflex.ven.settings import VenTls
from cariflex.vtn.api import Api
from cariflex.vtn.board import Board
from cariflex.vtn.events import Event, Opt
from cariflex.vtn.protocol import Vtn
from cariflex.vtn.reports import MOST_OPTS, KeptOpt, KeptPoint, Reported, ValueQuery, WantedReport
from cariflex.vtn.settings import VtnSettings
from cariflex.vtn.store import (
    Decide,
    RefusedError,
    Registration,
    Snapshot,
    StoreError,
    refuse_many_points,
    refuse_other_opt,
)

# For processes that tests start: where the services' sources are.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "files/services/src")}

VEN = "Cariflex-VEN-001"
OTHER_VEN = "Cariflex-VEN-002"
TOKEN = "a-token-for-tests"
PATH = "/OpenADR2/Simple/2.0b"
DESTINATIONS = {
    "ENERGY_PRICE": Destination(84, "EUR/MWh", 3600),
    "LOAD_CONTROL": Destination(86, "%", 900, 100.0),
    "SIMPLE": Destination(87, "dimensionless", 900, 0.0),
}

# As FlexMeasures 1.0 says it, before the code.
REPLACEMENT = (
    "Some of the data represents a replacement: existing values would be changed for the same sensor, source, event "
    "timestamp and belief time. This is reserved for customized servers. If you are hosting FlexMeasures, you can "
    "enable replacements by setting FLEXMEASURES_ALLOW_DATA_OVERWRITE=True in the configuration settings. "
    "Alternatively, submit the data with a different prior, or check whether the same file was already uploaded with "
    "different values."
)


class MemoryStore:
    """A store that forgets when the process ends; `broken` makes it refuse like an absent database."""

    def __init__(self) -> None:
        self.history: dict[str, list[Event]] = {}
        self.past: set[str] = set()  # events that a real store has moved out of its live tables
        self.registrations: dict[str, Registration] = {}
        self.kept_opts: dict[tuple[str, str], tuple[KeptOpt, datetime]] = {}
        self.points: dict[tuple[str, str, str], KeptPoint] = {}
        self.data: dict[tuple[str, str, str], dict[datetime, Reported]] = {}
        self.broken = False
        self._changed = asyncio.Event()

    async def open(self, ven_ids: Collection[str]) -> None:
        self.ven_ids = frozenset(ven_ids)
        self._check()

    async def close(self) -> None:
        pass

    async def snapshot(self, now: datetime) -> Snapshot:
        self._check()
        live = {i: versions[-1] for i, versions in self.history.items() if versions[-1].end > now}
        return Snapshot(dict(self.registrations), live)

    async def changes(self) -> AsyncIterator[None]:
        yield
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._check()
            yield

    async def register(self, registration: Registration) -> None:
        self._check()
        self.registrations[registration.ven_id] = registration
        self._changed.set()

    async def deregister(self, ven_id: str) -> None:
        self._check()
        self.registrations.pop(ven_id, None)
        self._changed.set()

    async def save(self, event_id: str, now: datetime, decide: Decide) -> tuple[Event, bool]:
        self._check()
        versions = self.history.get(event_id, [])
        others = [v[-1] for i, v in self.history.items() if i != event_id and v[-1].end > now and not v[-1].cancelled]
        current = versions[-1] if versions else None
        wanted = decide(current, others)
        if wanted is current:
            return wanted, False
        self.history.setdefault(event_id, []).append(wanted)
        self._changed.set()
        return wanted, True

    async def answer(self, event_id: str, ven_id: str, opt: Opt) -> None:
        self._check()
        versions = self.history[event_id]
        versions[-1] = replace(versions[-1], opts={**versions[-1].opts, ven_id: opt})
        self._changed.set()

    async def event(self, event_id: str) -> Event | None:
        self._check()
        return self.history[event_id][-1] if event_id in self.history else None

    async def events(self, limit: int) -> list[Event]:
        self._check()
        return sorted((v[-1] for v in self.history.values()), key=lambda event: event.start, reverse=True)[:limit]

    async def versions(self, event_id: str) -> list[Event]:
        self._check()
        return self.history.get(event_id, [])

    async def keep_opt(self, opt: KeptOpt, ends_at: datetime, answer: Opt | None = None) -> bool:
        self._check()
        key = (opt.ven_id, opt.schedule.opt_id)
        if key in self.kept_opts:
            refuse_other_opt(self.kept_opts[key][0], opt)
            return False
        if sum(ven_id == opt.ven_id for ven_id, _ in self.kept_opts) >= MOST_OPTS:
            raise RefusedError(f"the VTN keeps {MOST_OPTS} opts of a VEN, and has them")
        self.kept_opts[key] = opt, ends_at
        if opt.event_id is not None and answer is not None:
            await self.answer(opt.event_id, opt.ven_id, answer)
        return True

    async def cancel_opt(self, ven_id: str, opt_id: str, now: datetime) -> bool:
        self._check()
        if (ven_id, opt_id) not in self.kept_opts:
            return False
        opt, ends_at = self.kept_opts[ven_id, opt_id]
        self.kept_opts[ven_id, opt_id] = replace(opt, cancelled_at=opt.cancelled_at or now), ends_at
        return True

    async def opts(self, limit: int, ven_id: str | None = None) -> list[KeptOpt]:
        self._check()
        found = [opt for opt, _ in self.kept_opts.values() if ven_id in (None, opt.ven_id)]
        return sorted(found, key=lambda opt: opt.received_at, reverse=True)[:limit]

    async def register_reports(self, ven_id: str, wanted: Sequence[WantedReport], now: datetime) -> None:
        self._check()
        refuse_many_points(wanted)
        self.points |= {k: replace(p, offered=False) for k, p in self.points.items() if k[0] == ven_id}
        for report in wanted:
            for point in report.offered.points:
                self.points[ven_id, report.request_id, point.r_id] = KeptPoint(
                    ven_id, report.offered.name, report.offered.specifier_id, point, report.granularity, True, now
                )

    async def keep_reports(self, ven_id: str, sent: Sequence[SentReport]) -> int:
        self._check()
        new: dict[tuple[tuple[str, str, str], datetime], Reported] = {}
        for report in sent:
            for datum in report.data:
                key = (ven_id, report.request_id, datum.r_id)
                kept = self.points.get(key)
                if kept is None or not kept.offered:
                    raise RefusedError(f"rID {datum.r_id!r} of report request {report.request_id!r} was not asked for")
                value = None if datum.value is None else datum.value * kept.point.factor
                names = (ven_id, kept.report_name, kept.point.resource_id, kept.point.unit)
                new[key, datum.start] = Reported(*names, replace(datum, value=value))
        for (key, start), value_of in new.items():
            self.data.setdefault(key, {})[start] = value_of
        return len(new)

    async def report_points(self) -> list[KeptPoint]:
        self._check()
        return [
            replace(p, last_value_at=max(self.data.get(k, {}), default=None)) for k, p in sorted(self.points.items())
        ]

    async def reported(self, query: ValueQuery) -> list[Reported]:
        self._check()
        found = [
            each
            for of in self.data.values()
            for each in of.values()
            if query.ven_id in (None, each.ven_id)
            and query.resource_id in (None, each.resource_id)
            and query.report_name in (None, each.report_name)
            and (query.start is None or each.datum.start >= query.start)
            and (query.end is None or each.datum.start < query.end)
        ]
        return sorted(found, key=lambda each: each.datum.start)[-query.limit :]

    async def prune(self, events_before: datetime, reports_before: datetime, most_values: int) -> int:
        self._check()
        self.kept_opts = {k: kept for k, kept in self.kept_opts.items() if kept[1] >= reports_before}
        for ven_id in {key[0] for key in self.data}:
            starts = sorted((s for k, of in self.data.items() if k[0] == ven_id for s in of), reverse=True)
            last_over = starts[most_values] if len(starts) > most_values else None
            for key in [key for key in self.data if key[0] == ven_id]:
                kept = {s: r for s, r in self.data[key].items() if s >= reports_before}
                self.data[key] = {s: r for s, r in kept.items() if last_over is None or s > last_over}
        self.points = {k: p for k, p in self.points.items() if p.offered or self.data.get(k)}
        before = len(self.past)
        self.past |= {i for i, versions in self.history.items() if versions[-1].end < events_before}
        return len(self.past) - before

    def _check(self) -> None:
        if self.broken:
            raise StoreError("made to fail")


def free_port() -> int:
    """A port that nothing listens on, and that the kernel gives to no outgoing connection before somebody does."""
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), None) if is_free(port))


def is_free(port: int) -> bool:
    """Whether nothing listens on a port."""
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def vtn_settings(**different: Any) -> VtnSettings:
    """Settings of a VTN on loopback that asks for a poll every second."""
    values: dict[str, Any] = {
        "vtn_id": "CARIFLEX_VTN",
        "host": "127.0.0.1",
        "port": free_port(),
        "api_port": free_port(),
        "poll_seconds": 1,
        "database": {"host": "127.0.0.1"},
        "vens": {VEN: {"registration_id": f"reg-{VEN}"}, OTHER_VEN: {"registration_id": f"reg-{OTHER_VEN}"}},
    }
    return VtnSettings(**(values | different))


@dataclass
class RunningVtn:
    """A VTN and its API; both speak over loopback."""

    settings: VtnSettings
    board: Board
    store: Any
    exchanges: list[tuple[str, str]] = field(default_factory=list)  # request and response bodies
    handshakes_refused: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http{'s' if self.settings.tls else ''}://127.0.0.1:{self.settings.port}{PATH}"

    async def api(self, method: str, path: str, body: Any = None, token: str | None = TOKEN) -> tuple[int, Any]:
        """Call the API; `body` is sent as JSON, or as it is when it is bytes."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        sent: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        address = f"http://127.0.0.1:{self.settings.api_port}{path}"
        async with ClientSession() as http, http.request(method, address, headers=headers, **sent) as answer:
            return answer.status, await answer.json()

    async def send(
        self,
        service: str,
        body: str | bytes,
        content_type: str = "application/xml",
        tls: ssl.SSLContext | bool = True,
    ) -> tuple[int, str]:
        """Post a raw message to an OpenADR service, over a connection of its own."""
        data = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": content_type}
        address = f"{self.url}/{service}"
        async with ClientSession() as http, http.post(address, data=data, headers=headers, ssl=tls) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def running_vtn(store: Any = None, settings: VtnSettings | None = None) -> AsyncIterator[RunningVtn]:
    """A VTN with its API; records all OpenADR traffic."""
    settings = settings or vtn_settings()
    store = store if store is not None else MemoryStore()
    board = Board(store, settings.vens)
    vtn = RunningVtn(settings, board, store)

    @web.middleware
    async def record(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response = await handler(request)
        if body := await request.read():  # a poll that was known has been let go of
            vtn.exchanges.append((body.decode(errors="replace"), getattr(response, "text", None) or ""))
        return response

    following = asyncio.create_task(board.follow())
    await board.loaded.wait()
    openadr = Vtn(settings, board, store).app
    openadr.middlewares.insert(0, record)

    def health() -> tuple[list[str], dict[str, Any]]:
        return [board.trouble] if board.trouble else [], {}

    api = Api(settings, SecretStr(TOKEN), board, store, health).app
    tls = server_context(settings.tls, vtn.handshakes_refused.append) if settings.tls else None
    runners = [
        await listen(openadr, "127.0.0.1", settings.port, tls),
        await listen(api, "127.0.0.1", settings.api_port),
    ]
    try:
        yield vtn
    finally:
        for runner in runners:
            await runner.cleanup()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class FakeFlexMeasures:
    """FlexMeasures' login and data posts as FlexMeasures 1.0.1 answers them.

    `refuse` may name the status for a request: it gets the sensor and the body and returns a status or None.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.password = "ven-password"
        self.tokens: set[str] = set()
        self.posts: list[tuple[int, dict[str, Any]]] = []  # those that were stored
        self.beliefs: dict[tuple[int, int, str], float] = {}  # sensor, event start, belief time -> value
        self.refuse: Callable[[int, dict[str, Any]], web.Response | None] = lambda _sensor, _body: None
        self.ready = True
        self.logins = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def values(self, sensor: int) -> dict[datetime, float]:
        """The value of each cell of a sensor with the latest belief."""
        latest: dict[datetime, tuple[str, float]] = {}
        for (of, start, belief), value in self.beliefs.items():
            at = datetime.fromtimestamp(start, UTC)
            if of == sensor and (at not in latest or latest[at][0] < belief):
                latest[at] = (belief, value)
        return {at: value for at, (_, value) in sorted(latest.items())}

    async def start(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.post("/api/requestAuthToken", self._log_in),
                web.post("/api/v3_0/sensors/{sensor}/data", self._data),
                web.post("/cariflex/v1/withdraw", self._withdraw),
                web.post("/cariflex/v1/values", self._values),
                web.post("/cariflex/v1/observations", self._observe),
                web.get("/api/v3_0/health/ready", self._ready),
            ]
        )
        self._runner = await listen(app, "127.0.0.1", self.port)

    async def _observe(self, request: web.Request) -> web.Response:
        return web.json_response({"stored": len((await request.json())["observations"])})

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _ready(self, _request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if self.ready else 503)

    async def _log_in(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.logins += 1
        if body != {"email": "ven@cariflex.internal", "password": self.password}:
            return web.json_response({"errors": ["Invalid credentials."]}, status=401)
        token = f"token-{self.logins}"
        self.tokens.add(token)
        return web.json_response({"auth_token": token, "user_id": 1})

    async def _data(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") not in self.tokens:
            return web.json_response({"message": "no valid token"}, status=401)
        sensor, body = int(request.match_info["sensor"]), await request.json()
        if refusal := self.refuse(sensor, body):
            return refusal
        start = int(datetime.fromisoformat(body["start"]).timestamp())
        cell = {84: 3600}.get(sensor, 900)
        cells = {(sensor, start + n * cell, body["prior"]): value for n, value in enumerate(body["values"])}
        if any(self.beliefs.get(key, value) != value for key, value in cells.items()):
            told = {"message": REPLACEMENT, "result": "Rejected", "status": "INVALID_REPLACEMENT"}
            return web.json_response(told, status=403, dumps=partial(json.dumps, indent=2))
        self.beliefs |= cells
        self.posts.append((sensor, body))
        return web.json_response({"status": "PROCESSED"})

    async def _values(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") not in self.tokens:
            return web.json_response({"message": "no valid token"}, status=401)
        body = await request.json()
        self.posts.append((body["sensor"], body))
        return web.json_response({"message": "stored"})

    async def _withdraw(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") not in self.tokens:
            return web.json_response({"message": "no valid token"}, status=401)
        body = await request.json()
        start, end = (int(datetime.fromisoformat(body[key]).timestamp()) for key in ("start", "end"))
        gone = [
            key
            for key in self.beliefs
            if key[0] == body["sensor"] and start <= key[1] < end and key[2] <= body["prior"]
        ]
        for key in gone:
            del self.beliefs[key]
        return web.json_response({"withdrawn": len(gone)})


@dataclass
class RunningVen:
    """The parts of a VEN."""

    session: Session
    sender: Sender
    outbox: Outbox


class HastySession(Session):
    """Polls ten times a second; a VTN can only ask for whole seconds."""

    @property
    def poll_seconds(self) -> float:
        return 0.1

    @poll_seconds.setter
    def poll_seconds(self, _asked: float) -> None:
        pass


@asynccontextmanager
async def running_ven(
    vtn_url: str,
    flexmeasures_url: str,
    folder: Path,
    name: str = VEN,
    tls: VenTls | None = None,
    rules: Sequence[Rule] = (),
) -> AsyncIterator[RunningVen]:
    """A VEN that polls and sends until the block ends."""
    outbox = Outbox(folder)
    sender = Sender(flexmeasures_url, "ven@cariflex.internal", SecretStr("ven-password"), outbox)
    session_module.FIRST_PAUSE_SECONDS = 0.1
    inbox = Inbox(outbox, DESTINATIONS, sender.wake.set, rules)
    inbox.reconsider()
    session = HastySession(name, vtn_url, inbox, tls)
    tasks = [asyncio.create_task(session.run()), asyncio.create_task(sender.run())]
    try:
        yield RunningVen(session, sender, outbox)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        outbox.close()


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition is true (its value is returned), or fail."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):
            await asyncio.sleep(0.02)
        return value


def next_hour(hours: int = 3) -> datetime:
    """A full hour in the future: so far that it does not come while the tests run."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=hours)


def price_body(start: datetime, *values: float, **different: Any) -> dict[str, Any]:
    """Body of a PUT for an hourly price."""
    return {
        "signal_name": "ENERGY_PRICE",
        "unit": "EUR/MWh",
        "start": start.isoformat(),
        "intervals": [{"duration": "PT1H", "value": value} for value in values or (120.0,)],
        "targets": [VEN],
    } | different
