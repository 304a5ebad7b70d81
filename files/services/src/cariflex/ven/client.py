"""The VEN's side of one exchange of messages with the VTN."""

import asyncio
import logging
import ssl
from http import HTTPStatus
from typing import Any

import aiohttp
from openleadr import OpenADRClient
from openleadr.messaging import etree, parse_message, validate_xml_schema

from cariflex.openadr.messages import MessageError, check_body
from cariflex.openadr.signatures import SignatureError, Signatures
from cariflex.openadr.tls import client_context, reason_of
from cariflex.ven.settings import VenTls

log = logging.getLogger(__name__)


MAX_ANSWER_BYTES = 16 * 1024 * 1024  # 400 events of 96 intervals


class VtnClient(OpenADRClient):  # type: ignore[misc] # openleadr has no types
    """openleadr's client, whose way to the VTN is ours: it knows the VTN's certificate, and says why something failed.

    openleadr's own logs a failure and answers None for it; and a message that is not signed breaks its verification.
    """

    client_session: Any

    def __init__(self, ven_name: str, vtn_url: str, tls: VenTls | None = None) -> None:
        self._tls = tls
        self._signatures = Signatures(tls.replay_seconds) if tls and tls.signatures else None
        self.trouble: str | None = None  # why the last request was not answered
        signs = {"cert": tls.certificate, "key": tls.key} if tls and tls.signatures else {}
        super().__init__(ven_name=ven_name, vtn_url=vtn_url, show_fingerprint=False, **signs)

    async def create_party_registration(self, **different: Any) -> Any:
        """Register; the VTN is told whether messages are signed."""
        return await super().create_party_registration(xml_signature=self._signatures is not None, **different)

    async def ask(self, service: str, message_type: str, **payload: Any) -> tuple[str | None, dict[str, Any]]:
        """Send a message of ours; (None, {}) when there was no answer, and `trouble` says why."""
        message = self._create_message(message_type, ven_id=self.ven_id, **payload)
        answer = await self._perform_request(service, message)
        return answer if isinstance(answer, tuple) else (None, {})

    async def _ensure_client_session(self) -> None:
        if self.client_session is None and self._tls is not None:
            context = client_context(self._tls, self._tls.vtn_fingerprint)
            self.client_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                headers={"content-type": "application/xml"},
                timeout=aiohttp.ClientTimeout(sock_connect=5, sock_read=10),
            )
        await super()._ensure_client_session()

    async def _perform_request(self, service: str, message: str) -> Any:
        """Send a message; openleadr's functions on top of it expect (type, payload) or (None, {})."""
        self.trouble = None
        await self._ensure_client_session()
        try:
            async with self.client_session.post(f"{self.vtn_url}/{service}", data=message) as answer:
                content = await _bounded(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._failed(self._why(error))
        if len(content) > MAX_ANSWER_BYTES:
            return self._failed(f"the VTN's answer is larger than {MAX_ANSWER_BYTES} bytes")
        if answer.status != HTTPStatus.OK:
            text = content[:200].decode(errors="replace").strip()
            return self._failed(f"the VTN answered HTTP {answer.status}: {text}")
        if not content:
            return self._failed("the VTN's answer is empty")
        try:
            check_body(content)
            tree = validate_xml_schema(content)
            if self._signatures and self._tls:
                self._signatures.verify(tree, self._tls.vtn_fingerprint)
            kind, payload = parse_message(content)
            _keep_ids(kind, payload, tree)
        except (MessageError, SignatureError) as error:
            return self._failed(f"the VTN's answer is not acceptable: {error}")
        except etree.XMLSyntaxError as error:
            return self._failed(f"the VTN's answer is not valid OpenADR: {error}")
        except Exception as error:  # openleadr breaks on what is valid and unusual
            log.exception("the VTN's answer cannot be understood")
            return self._failed(f"the VTN's answer cannot be understood: {type(error).__name__}: {error}")
        await self._execute_hooks("after_parse_xml", kind, payload)
        return kind, payload

    def _failed(self, reason: str) -> tuple[None, dict[str, Any]]:
        log.warning("no answer from the VTN", extra={"reason": reason})
        self.trouble = reason
        return None, {}

    def _why(self, error: Exception) -> str:
        """Why a request failed, for a person."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                return f"TLS with the VTN failed: {reason_of(cause)}"
            cause = cause.__cause__
        connected = not isinstance(error, aiohttp.ClientConnectorError)
        if self._tls and connected and isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            return "the VTN closed the connection, as it does when it does not accept the VEN's certificate"
        return "the VTN cannot be reached"


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The body, and one byte more than is allowed where it is larger."""
    try:
        return await answer.content.readexactly(MAX_ANSWER_BYTES + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial


def _keep_ids(kind: str, payload: dict[str, Any], tree: Any) -> None:
    """Ids as they were sent: openleadr turns one that looks like a number into one, `007` into 7."""
    if kind == "oadrDistributeEvent":
        described = tree.iterfind(".//{*}eventDescriptor/{*}eventID")
        for event, sent in zip(payload.get("events", []), described, strict=True):
            event["event_descriptor"]["event_id"] = sent.text
    elif kind in ("oadrCreateReport", "oadrRegisteredReport"):
        requested = tree.iterfind(".//{*}oadrReportRequest/{*}reportRequestID")
        for request, sent in zip(payload.get("report_requests") or [], requested, strict=True):
            request["report_request_id"] = sent.text
