"""OpenADR 2.0b towards the VENs.

openleadr parses, renders and validates; what is said comes from the board and the store. Its own event queue is not
used: it forgets events on restart, sends each only once and tells no opt of a modification.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

from aiohttp import web
from openleadr import OpenADRServer, errors, utils
from openleadr.messaging import etree, validate_xml_schema
from openleadr.service import OptService, VTNService, vtn_service
from prometheus_client import Counter, Gauge

from cariflex.openadr import incoming
from cariflex.openadr.messages import MAX_MESSAGE_BYTES, MessageError, check_body
from cariflex.openadr.signatures import SignatureError, Signatures
from cariflex.openadr.tls import Certificate, peer_certificate
from cariflex.vtn.board import Board
from cariflex.vtn.distributions import Distributions
from cariflex.vtn.events import Event, Opt, distribution, event_id_of
from cariflex.vtn.polls import KnownPolls
from cariflex.vtn.reports import LATEST, KeptOpt, wanted
from cariflex.vtn.settings import VtnSettings
from cariflex.vtn.store import RefusedError, Registration, Store, StoreError

log = logging.getLogger(__name__)

OPTS = Counter("cariflex_vtn_opts_total", "Answers of VENs to events.", ["ven_id", "opt_type"])
DISTRIBUTIONS = Counter("cariflex_vtn_distributions_total", "Messages with events sent.", ["ven_id"])
REFUSED = Counter("cariflex_vtn_messages_refused_total", "Messages not accepted, by HTTP status.", ["status"])
VEN_CERTIFICATE = Gauge(
    "cariflex_vtn_ven_certificate_expiry_timestamp_seconds",
    "When the certificate ends that a VEN last came with, as Unix time.",
    ["ven_id"],
)

# The VEN whose certificate the connection has, and that certificate; None without TLS.
_sender: ContextVar[tuple[str, Certificate] | None] = ContextVar("sender", default=None)

REPORTED = Counter("cariflex_vtn_reported_values_total", "Values that VENs reported.", ["ven_id"])

_Read = TypeVar("_Read")
_Kept = TypeVar("_Kept")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Vtn:
    """The five OpenADR services of one VTN. openleadr keeps settings on classes: one VTN per process."""

    def __init__(self, settings: VtnSettings, board: Board, store: Store) -> None:
        self._settings = settings
        self._board = board
        self._store = store
        self._polls = KnownPolls(board)
        self._distributions = Distributions(settings.vtn_id)
        self._poll_path = f"{settings.path}/OadrPoll"
        signs = settings.tls is not None and settings.tls.signatures
        self._signatures = Signatures(settings.tls.replay_seconds) if settings.tls and signs else None
        self._ven_of = {fingerprint: ven for ven, of in settings.vens.items() for fingerprint in of.fingerprints}
        self._certificates: dict[str, Certificate] = {}
        server = OpenADRServer(
            vtn_id=settings.vtn_id,
            cert=settings.tls.certificate if settings.tls and signs else None,
            key=settings.tls.key if settings.tls and signs else None,
            show_fingerprint=False,
            verify_message_signatures=False,  # see cariflex.openadr.signatures
            http_path_prefix=settings.path,
            requested_poll_freq=timedelta(seconds=settings.poll_seconds),
            ven_lookup=self._look_up,
        )
        server.add_handler("on_create_party_registration", self._register)
        server.add_handler("on_cancel_party_registration", self._deregister)
        server.add_handler("on_poll", self._poll)
        # openleadr's own handler drops the modification number and breaks on VENs without events.
        server.services["event_service"].handlers["oadrCreatedEvent"] = self._created_event
        server.services["event_service"].handlers["oadrRequestEvent"] = self._request_event
        # openleadr's own forgets requests on restart, makes new ones with every registration, and breaks on payloads
        # that are no number. It serves no EiOpt.
        server.services["report_service"].handlers |= {
            "oadrRegisterReport": self._register_report,
            "oadrCreatedReport": self._created_report,
            "oadrUpdateReport": self._update_report,
        }
        opt_service = server.services["opt_service"] = OptService(settings.vtn_id)
        opt_service.handlers = {"oadrCreateOpt": self._create_opt, "oadrCancelOpt": self._cancel_opt}
        server.app.router.add_post(f"{settings.path}/EiOpt", opt_service.handler)
        vtn_service.parse_message = incoming.parse
        for service in server.services.values():
            service.error_response = self._error
        # A partial as an attribute of a class is to become a method in a later Python, and would get `self` then.
        VTNService._create_message = staticmethod(VTNService._create_message)
        server.app.middlewares.append(self._guard)
        self.app: web.Application = server.app

    def _error(self, message_type: str, code: int, description: str) -> tuple[str, dict[str, Any]]:
        """The answer that says no. openleadr's own breaks on oadrRequestEvent, and the VEN gets an HTTP 500."""
        response = {"response_code": code, "response_description": description, "request_id": ""}
        if message_type == "oadrRequestEvent":
            ids = {"vtn_id": self._settings.vtn_id, "request_id": ""}
            return "oadrDistributeEvent", {"response": response, "events": [], **ids}
        return "oadrResponse", {"response": response}

    def _look_up(self, ven_id: object) -> dict[str, str | None]:
        """Tell openleadr who a VEN is; without a registration id it asks the VEN to register again."""
        if ven_id not in self._board.ven_ids:
            raise errors.NotRegisteredOrAuthorizedError(_NOT_ADMITTED)
        certificate = _certificate_of(ven_id)
        registration = self._board.registration(str(ven_id))
        return {
            "ven_id": str(ven_id),
            "registration_id": registration.registration_id if registration else None,
            "fingerprint": certificate.fingerprint if certificate else None,
        }

    async def _register(self, message: Mapping[str, Any]) -> tuple[str, str]:
        ven_id = message.get("ven_name")
        if ven_id not in self._settings.vens or message.get("ven_id") not in (None, ven_id):
            log.warning("VEN refused", extra={"ven_name": ven_id, "ven_id": message.get("ven_id")})
            raise errors.NotRegisteredOrAuthorizedError(_NOT_ADMITTED)
        _certificate_of(ven_id)
        ven_id = str(ven_id)
        registration = Registration(ven_id, self._settings.vens[ven_id].registration_id, self._board.clock())
        await _kept(self._store.register(registration))
        self._board.registered(registration)
        log.info("VEN registered", extra={"ven_id": ven_id, "registration_id": registration.registration_id})
        return ven_id, registration.registration_id

    async def _deregister(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        ven_id = str(message["ven_id"])
        registration = self._board.registration(ven_id)
        if registration is None or message.get("registration_id") != registration.registration_id:
            raise errors.InvalidIdError("There is no such registration.")
        await _kept(self._store.deregister(ven_id))
        self._board.deregistered(ven_id)
        log.info("VEN deregistered", extra={"ven_id": ven_id, "registration_id": registration.registration_id})
        return "oadrCanceledPartyRegistration", {"ven_id": ven_id, "registration_id": registration.registration_id}

    async def _poll(self, ven_id: str) -> tuple[str, dict[str, Any]]:
        # Sent again on every poll until it is answered: the message or its answer may have been lost.
        return self._distribution(ven_id) if self._polls.polled(ven_id) else ("oadrResponse", {})

    async def _request_event(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return self._distribution(str(message["ven_id"]))

    def _distribution(self, ven_id: str) -> tuple[str, dict[str, Any]]:
        events, now = self._events_for(ven_id), self._board.clock()
        return "oadrDistributeEvent", distribution(self._settings.vtn_id, events, ven_id, now)

    def _events_for(self, ven_id: str) -> list[Event]:
        """All events of the VEN, to be sent: what is left out of an oadrDistributeEvent counts as withdrawn."""
        events = self._board.for_ven(ven_id)
        for event in events:
            if event.unanswered_by(ven_id):
                log.info("event sent", extra=_trace(event, ven_id))
        DISTRIBUTIONS.labels(ven_id).inc()
        return events

    async def _created_event(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        ven_id = str(message["ven_id"])
        unknown = []
        for response in message.get("event_responses") or []:
            event = self._board.event(event_id_of(response["event_id"], ven_id) or "")
            if event is None or ven_id not in event.targets | event.withdrawn:
                unknown.append(str(response["event_id"]))
            elif response["modification_number"] == event.modification_number and (
                event.unanswered_by(ven_id) or event.opts[ven_id].opt_type != response["opt_type"]
            ):
                await self._opted(event, ven_id, response["opt_type"])
        if unknown:
            log.warning("answer to unknown events", extra={"ven_id": ven_id, "event_ids": unknown})
            raise errors.InvalidIdError("An event in this answer is not known.")
        return "oadrResponse", {}

    async def _create_opt(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        ven_id = _speaker(message)
        schedule = _read(incoming.opt_schedule, message)
        event = self._qualified(schedule, ven_id)
        ends = [period.start + period.duration for period in schedule.periods] + ([event.end] if event else [])
        now = self._board.clock()
        kept = KeptOpt(ven_id, schedule, now, event.event_id if event else None)
        # What some resources do says nothing about the VEN as a whole, and what is said of an old version is no answer.
        answers = event and not schedule.resources and schedule.modification_number == event.modification_number
        answer = Opt(event.modification_number, schedule.opt_type, now) if event and answers else None
        if await _kept(self._store.keep_opt(kept, max(ends), answer)):
            log.info("opt schedule received", extra={"ven_id": ven_id, "opt_id": schedule.opt_id})
            if event and answer:
                self._answered(event, ven_id, answer)
        return "oadrCreatedOpt", {"opt_id": schedule.opt_id}

    def _qualified(self, schedule: incoming.OptSchedule, ven_id: str) -> Event | None:
        """The event that an opt schedule is about, if it names one."""
        if schedule.event_id is None:
            return None
        event = self._board.event(event_id_of(schedule.event_id, ven_id) or "")
        if event is None or ven_id not in event.targets | event.withdrawn:
            raise errors.InvalidIdError("The event that this opt names is not known.")
        if (schedule.modification_number or 0) > event.modification_number:
            raise errors.InvalidIdError("The event that this opt names has no such modification.")
        return event

    async def _cancel_opt(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        ven_id, opt_id = _speaker(message), _read(incoming.opt_id, message)
        if not await _kept(self._store.cancel_opt(ven_id, opt_id, self._board.clock())):
            raise errors.InvalidIdError("There is no such opt.")
        log.info("opt schedule cancelled", extra={"ven_id": ven_id, "opt_id": opt_id})
        return "oadrCanceledOpt", {"opt_id": opt_id}

    async def _register_report(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Ask for what we want of what the VEN offers; the same requests again when it registers again."""
        ven_id = _speaker(message)
        reports = wanted(_read(incoming.offered_reports, message), self._settings.reports)
        await _kept(self._store.register_reports(ven_id, reports, self._board.clock()))
        requested = [report.request_id for report in reports]
        log.info("reports registered", extra={"ven_id": ven_id, "requested": requested})
        return "oadrRegisteredReport", {"report_requests": [report.on_the_wire() for report in reports]}

    async def _created_report(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        log.info("reports confirmed", extra={"ven_id": _speaker(message)})
        return "oadrResponse", {}

    async def _update_report(self, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        ven_id = _speaker(message)
        reports = _read(incoming.sent_reports, message)
        now = self._board.clock()
        first, last = now - timedelta(days=self._settings.report_days), now + LATEST
        if any(not first <= datum.start <= last for report in reports for datum in report.data):
            raise errors.InvalidDataError("A value lies too far in the past or in the future.")
        REPORTED.labels(ven_id).inc(await _kept(self._store.keep_reports(ven_id, reports)))
        return "oadrUpdatedReport", {}

    async def _opted(self, event: Event, ven_id: str, opt_type: Any) -> None:
        opt = Opt(event.modification_number, opt_type, self._board.clock())
        await _kept(self._store.answer(event.event_id, ven_id, opt))
        self._answered(event, ven_id, opt)

    def _answered(self, event: Event, ven_id: str, opt: Opt) -> None:
        self._board.answered(event.event_id, ven_id, opt)
        OPTS.labels(ven_id, opt.opt_type).inc()
        log.info("event answered", extra=_trace(event, ven_id) | {"opt_type": opt.opt_type})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep from openleadr what it would break on; a broken message is the sender's fault: it never answers 5xx."""
        response: web.StreamResponse
        try:
            if request.method == "POST":
                response = await self._post(request, handler)
            else:
                response = await handler(request)
            if response.status >= 500:  # openleadr caught something, and logged it with its trace
                response = web.Response(status=400, text="The message could not be processed.\n")
        except web.HTTPException as refused:
            response = web.Response(status=refused.status, text=f"{refused.text or refused.reason}\n")
        except Exception:
            log.exception("message not understood", extra={"path": request.path, "peer": request.remote})
            response = web.Response(status=400, text="The message could not be processed.\n")
        if response.status >= 400:
            REFUSED.labels(response.status).inc()
            refusal = {"path": request.path, "peer": request.remote, "status": response.status}
            log.warning("message refused", extra=refusal)
        return response

    async def _post(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        sender, body = self._sender_of(request), await _body(request)
        if request.path != self._poll_path or self._signatures is not None:
            _check(body)
            self._verify(body, sender)
            return await _of(sender, handler, request)
        if known := self._polls.known(body, sender and sender[0]):
            request._read_bytes = None  # aiohttp keeps each connection's last request until the next
            ven_id = known.ven_id
            if not self._board.pending(ven_id):
                return known.nothing()
            request_id, now = utils.generate_id(), self._board.clock()
            text = self._distributions.message(self._events_for(ven_id), ven_id, now, request_id)
            return web.Response(text=text, content_type="application/xml")
        _check(body)
        with self._polls.asked() as nothing_for:
            response = await _of(sender, handler, request)
            self._polls.learn(nothing_for(), body, response)
        return response

    def _sender_of(self, request: web.Request) -> tuple[str, Certificate] | None:
        """With TLS, the VEN at the other end; looked up for every message, because a connection may outlive it."""
        if self._settings.tls is None:
            return None
        certificate = peer_certificate(request)
        ven_id = self._ven_of.get(certificate.fingerprint) if certificate else None
        if certificate is None or ven_id is None or certificate.expired:
            which = certificate.fingerprint if certificate else "none"
            reason = "has expired" if ven_id else "is not admitted to this VTN"
            raise web.HTTPForbidden(text=f"The certificate with the fingerprint {which} {reason}.")
        if self._certificates.get(ven_id) != certificate:
            self._certificates[ven_id] = certificate
            VEN_CERTIFICATE.labels(ven_id).set(certificate.expires.timestamp())
        return ven_id, certificate

    def _verify(self, body: bytes, sender: tuple[str, Certificate] | None) -> None:
        """With signatures, refuse a message that its sender has not signed."""
        if self._signatures is None or sender is None:
            return
        try:
            self._signatures.verify(validate_xml_schema(body), sender[1].fingerprint)
        except etree.XMLSyntaxError as error:
            raise web.HTTPBadRequest(text=f"Not valid: {error}.") from None
        except SignatureError as error:
            raise web.HTTPForbidden(text=f"Not accepted: {error}.") from None


async def _of(sender: tuple[str, Certificate] | None, handler: Handler, request: web.Request) -> web.StreamResponse:
    """Handle a message of a sender. Requests of one connection share a context: it is left as it was."""
    token = _sender.set(sender)
    try:
        return await handler(request)
    finally:
        _sender.reset(token)


def _certificate_of(ven_id: object) -> Certificate | None:
    """The certificate that a message of this VEN came with; with another VEN's, it is refused."""
    sender = _sender.get()
    if sender is not None and sender[0] != ven_id:
        log.warning("VEN spoke for another", extra={"ven_id": sender[0], "spoke_for": ven_id})
        raise errors.InvalidIdError("The certificate belongs to another VEN.")
    return sender[1] if sender else None


def _speaker(message: Mapping[str, Any]) -> str:
    """The VEN that a message names. Where the schema lets it be left out, openleadr has not looked the VEN up."""
    ven_id = message.get("ven_id")
    if not ven_id:
        raise errors.InvalidIdError("The message has no venID.")
    return str(ven_id)


def _read(reader: Callable[[Any], _Read], message: Mapping[str, Any]) -> _Read:
    try:
        return reader(message["message"])
    except MessageError as error:
        raise errors.InvalidDataError(f"Not acceptable: {error}.") from error


async def _kept(change: Awaitable[_Kept]) -> _Kept:
    """Make a change in the store; the VEN hears of a failure and comes again."""
    try:
        return await change
    except RefusedError as error:
        raise errors.InvalidIdError(f"Not acceptable: {error}.") from error
    except StoreError as error:
        log.error("a VEN's message could not be stored", extra={"reason": str(error)})
        raise errors.DeploymentError("The VTN's store cannot be reached; try again.") from error


_NOT_ADMITTED = "This VEN is not admitted to this VTN."


def _trace(event: Event, ven_id: str) -> dict[str, Any]:
    return {"event_id": event.event_id, "modification_number": event.modification_number, "ven_id": ven_id}


async def _body(request: web.Request) -> bytes:
    """The body of a message whose type and length are acceptable."""
    if request.content_type != "application/xml":
        raise web.HTTPUnsupportedMediaType(text="The Content-Type must be application/xml.")
    if (request.content_length or 0) > MAX_MESSAGE_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_MESSAGE_BYTES, request.content_length or 0)
    return await request.read()  # kept by aiohttp, which also limits its length where none was declared


def _check(body: bytes) -> None:
    """Refuse what must not reach the parser."""
    try:
        check_body(body)
    except MessageError as error:
        raise web.HTTPBadRequest(text=f"Not acceptable: {error}.") from error
