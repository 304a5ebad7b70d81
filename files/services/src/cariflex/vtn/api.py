"""HTTP API of the VTN for operators and playbooks: create, change, cancel and list events."""

import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from prometheus_client import Counter
from pydantic import SecretStr

from cariflex.problems import InputError, Problem
from cariflex.service import Health, health_routes
from cariflex.vtn.board import Board
from cariflex.vtn.events import EVENT_ID_PATTERN, ConflictError, Event, EventRequest, accepted, cancelled, requested
from cariflex.vtn.openapi import document
from cariflex.vtn.reports import ValueQuery
from cariflex.vtn.settings import VtnSettings
from cariflex.vtn.store import Decide, Store, StoreError
from cariflex.vtn.watch import Watchers

log = logging.getLogger(__name__)

CHANGES = Counter("cariflex_vtn_event_changes_total", "Events created, modified and cancelled by the API.", ["change"])

MAX_BODY_BYTES = 1024 * 1024
MAX_LISTED = 1000
MAX_VALUES = 10_000
MAX_NAME = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The routes and what they do."""

    def __init__(self, settings: VtnSettings, token: SecretStr, board: Board, store: Store, health: Health) -> None:
        self._settings = settings
        self._token = token.get_secret_value().encode()
        self._board = board
        self._store = store
        self.app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._middleware])
        self._watchers = Watchers(board, store)
        self.app.on_shutdown.append(self._watchers.stop)
        self.app.add_routes(
            [
                *health_routes(health),
                web.get("/openapi.json", self._get_openapi),
                web.get("/api/v1/events", self._get_events),
                web.get("/api/v1/events/{event_id}", self._get_event),
                web.put("/api/v1/events/{event_id}", self._put_event),
                web.delete("/api/v1/events/{event_id}", self._delete_event),
                web.post("/api/v1/events/{event_id}/preview", self._preview_event),
                web.get("/api/v1/watch", self._watch),
                web.get("/api/v1/vens", self._get_vens),
                web.get("/api/v1/opts", self._get_opts),
                web.get("/api/v1/reports", self._get_reports),
                web.get("/api/v1/reports/values", self._get_values),
            ]
        )

    async def _get_openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(document(sorted(self._settings.vens), sorted(self._settings.groups)))

    async def _get_events(self, request: web.Request) -> web.Response:
        limit, now = _limit(request, MAX_LISTED), self._board.clock()
        return web.json_response({"events": [event.as_dict(now) for event in await self._store.events(limit)]})

    async def _get_event(self, request: web.Request) -> web.Response:
        event_id = _event_id(request)
        versions = await self._store.versions(event_id)
        if not versions:
            raise _unknown(event_id)
        now = self._board.clock()
        answer = versions[-1].as_dict(now) | {"versions": [_version(version) for version in versions]}
        return web.json_response(answer)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """Events as they change; of an address of its own, because `watch` may be the id of an event."""
        event_id = _name(request, "event_id")
        event = await self._store.event(event_id) if event_id else None
        if event_id and event is None:
            raise _unknown(event_id)
        return await self._watchers.watch(request, event)

    async def _put_event(self, request: web.Request) -> web.Response:
        event_id = _event_id(request)
        now = self._board.clock()
        event, changed = await self._store.save(event_id, now, await self._decision(request, event_id, now))
        created = changed and event.modification_number == 0
        return await self._changed(event, changed, "created" if created else "modified", 201 if created else 200)

    async def _preview_event(self, request: web.Request) -> web.Response:
        """Answer as PUT would, and change nothing.

        An address of its own and no parameter of PUT: a VTN that does not know it must not change anything either.
        """
        event_id = _event_id(request)
        now = self._board.clock()
        decide = await self._decision(request, event_id, now)

        def decide_and_stop(current: Event | None, live: Sequence[Event]) -> Event:
            wanted = decide(current, live)
            raise _Previewed(wanted, wanted is not current)

        try:
            event, changed = await self._store.save(event_id, now, decide_and_stop)
        except _Previewed as previewed:
            event, changed = previewed.event, previewed.changed
        return web.json_response({"changed": changed, "event": event.as_dict(now)})

    async def _decision(self, request: web.Request, event_id: str, now: datetime) -> Decide:
        """What a request makes of the event that there is."""
        asked = EventRequest.parse(await request.read())
        past_start = timedelta(minutes=self._settings.past_start_minutes)

        def decide(current: Event | None, live: Sequence[Event]) -> Event:
            wanted = requested(event_id, asked, current, self._settings.vens, now, self._settings.groups)
            return accepted(wanted, current, live, self._settings.vtn_id, now, past_start)

        return decide

    async def _delete_event(self, request: web.Request) -> web.Response:
        event_id = _event_id(request)
        now = self._board.clock()

        def decide(current: Event | None, _live: Sequence[Event]) -> Event:
            if current is None:
                raise _unknown(event_id)
            return cancelled(current, now)

        event, changed = await self._store.save(event_id, now, decide)
        return await self._changed(event, changed, "cancelled", 200)

    async def _changed(self, event: Event, changed: bool, change: str, status: int) -> web.Response:
        if changed:
            CHANGES.labels(change).inc()
            log.info(
                f"event {change}",
                extra={
                    "event_id": event.event_id,
                    "modification_number": event.modification_number,
                    "signal_name": event.signal_name,
                    "targets": sorted(event.targets),
                },
            )
            await self._board.refresh()
        body = {"changed": changed, "event": event.as_dict(self._board.clock())}
        return web.json_response(body, status=status)

    async def _get_vens(self, _request: web.Request) -> web.Response:
        vens = []
        for ven_id in sorted(self._board.ven_ids):
            registration, poll = self._board.registration(ven_id), self._board.last_poll.get(ven_id)
            vens.append(
                {
                    "ven_id": ven_id,
                    "registration_id": registration.registration_id if registration else None,
                    "registered_at": registration.registered_at.isoformat() if registration else None,
                    "last_poll": poll.isoformat() if poll else None,
                }
            )
        return web.json_response({"vens": vens})

    async def _get_opts(self, request: web.Request) -> web.Response:
        opts = await self._store.opts(_limit(request, MAX_LISTED), _name(request, "ven_id"))
        return web.json_response({"opts": [opt.as_dict() for opt in opts]})

    async def _get_reports(self, _request: web.Request) -> web.Response:
        return web.json_response({"points": [point.as_dict() for point in await self._store.report_points()]})

    async def _get_values(self, request: web.Request) -> web.Response:
        query = ValueQuery(
            ven_id=_name(request, "ven_id"),
            resource_id=_name(request, "resource_id"),
            report_name=_name(request, "report_name"),
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            limit=_limit(request, MAX_VALUES),
        )
        return web.json_response({"values": [value.as_dict() for value in await self._store.reported(query)]})

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the token, and give every error the same form."""
        try:
            if request.path.startswith("/api/") and not self._authorized(request):
                fix = "Send the header Authorization: Bearer <token>; the token is the secret openadr_api_token."
                return _errors(401, [Problem("Authorization", None, "the token is missing or wrong", fix)])
            return await handler(request)
        except ConflictError as error:
            return _errors(409, error.problems)
        except InputError as error:
            return _errors(422, error.problems)
        except StoreError as error:
            return _errors(503, [Problem("(store)", None, f"the store cannot be reached: {error}", "Try again.")])
        except web.HTTPRequestEntityTooLarge:
            fix = f"Send at most {MAX_BODY_BYTES} bytes."
            return _errors(413, [Problem("(whole input)", None, "is too large", fix)])
        except web.HTTPException as error:
            fix = "The addresses are described in /openapi.json."
            return _errors(error.status, [Problem("(address)", f"{request.method} {request.path}", error.reason, fix)])

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._token)


class _Previewed(Exception):  # noqa: N818  it is an answer, no error
    """Ends a transaction in which the next version was decided and must not be stored."""

    def __init__(self, event: Event, changed: bool) -> None:
        super().__init__(event.event_id)
        self.event = event
        self.changed = changed


class _Unknown(web.HTTPNotFound):
    """There is no such event."""


def _unknown(event_id: str) -> web.HTTPException:
    return _Unknown(reason=f"There is no event {event_id}.")


def _limit(request: web.Request, most: int) -> int:
    limit = request.query.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,5}", limit) or not 1 <= int(limit) <= most:
        raise InputError([Problem("limit", limit, "is not how many to list", f"Give 1 to {most}.")])
    return int(limit)


def _name(request: web.Request, name: str) -> str | None:
    text = request.query.get(name)
    if text is not None and not (text.isprintable() and 0 < len(text) <= MAX_NAME):
        raise InputError([Problem(name, text[:MAX_NAME], "is no name", f"Give 1 to {MAX_NAME} characters.")])
    return text


def _moment(request: web.Request, name: str) -> datetime | None:
    if (text := request.query.get(name)) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    fix = "Give ISO 8601 with an offset, for example 2026-12-01T00:00:00-04:00; in an address, + is written %2B."
    raise InputError([Problem(name, text[:MAX_NAME], "is not a time with an offset from UTC", fix)])


def _event_id(request: web.Request) -> str:
    event_id = request.match_info["event_id"]
    if not re.fullmatch(EVENT_ID_PATTERN, event_id):
        fix = "Begin with a letter and use up to 100 letters, digits, dots, hyphens and underscores."
        raise InputError([Problem("event_id", event_id[:200], "is not an event id", fix)])
    return event_id


def _version(event: Event) -> dict[str, Any]:
    shown = (
        "modification_number",
        "signal_name",
        "unit",
        "start",
        "end",
        "intervals",
        "targets",
        "targets_asked",
        "priority",
        "test_event",
    )
    everything = event.as_dict(event.modified_at)
    return {key: everything[key] for key in shown} | {
        "cancelled": event.cancelled,
        "modified_at": everything["modified_at"],
    }


def _errors(status: int, problems: Sequence[Problem]) -> web.Response:
    body = json.dumps({"errors": [problem.as_dict() for problem in problems]}, default=str)
    return web.Response(text=body, status=status, content_type="application/json")
