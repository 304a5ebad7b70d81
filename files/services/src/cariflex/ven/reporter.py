"""The messages of reports: offering them, taking and ending requests, sending values."""

import logging
from collections.abc import Mapping
from typing import Any

from openleadr.utils import generate_id

from cariflex.ven.client import VtnClient
from cariflex.ven.reports import ReportError, Reports

log = logging.getLogger(__name__)

REPORT_MESSAGES = ("oadrCreateReport", "oadrCancelReport", "oadrRegisterReport")


class Reporter:
    """Speaks of `reports` with the VTN, within the session."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def offer(self, client: VtnClient) -> None:
        """Register the reports: OpenADR 2.0b asks for it after every registration, also when there are none."""
        self._reports.registered()
        kind, payload = await client.ask(
            "EiReport", "oadrRegisterReport", request_id=generate_id(), reports=self._reports.offered()
        )
        if kind == "oadrRegisteredReport" and payload.get("report_requests"):
            await self._take(client, payload)

    async def handle(self, client: VtnClient, kind: str, payload: Mapping[str, Any]) -> None:
        """Answer a message of the VTN, one of REPORT_MESSAGES."""
        if kind == "oadrCreateReport":
            await self._take(client, payload)
        elif kind == "oadrCancelReport":
            await self._cancel(client, payload)
        else:  # the VTN offers reports of its own: we want none
            await _answer(client, "oadrRegisteredReport", payload, report_requests=[])

    async def send(self, client: VtnClient) -> None:
        """Send what is due; what gets no answer waits."""
        for request, values in self._reports.due():
            kind, payload = await client.ask(
                "EiReport",
                "oadrUpdateReport",
                request_id=generate_id(),
                reports=[self._reports.message(request, values)],
            )
            if kind is None:
                return
            code = (payload.get("response") or {}).get("response_code", 200)
            if code == 200:
                self._reports.sent(request, values)
            else:
                self._reports.refused(request, values, f"the VTN answered {code}", unknown=code == 452)
            if isinstance(cancel := payload.get("cancel_report"), Mapping):
                await self._cancel(client, cancel)

    async def _take(self, client: VtnClient, payload: Mapping[str, Any]) -> None:
        code, said = 200, "OK"
        for wanted in payload.get("report_requests") or ():
            try:
                self._reports.request(wanted)
            except ReportError as error:
                code, said = error.code, str(error)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                code, said = 454, f"not understood: {type(error).__name__}"
        if code != 200:
            log.warning("report request refused", extra={"reason": said})
        await _answer(client, "oadrCreatedReport", payload, code, said, pending_reports=self._pending())

    async def _cancel(self, client: VtnClient, payload: Mapping[str, Any]) -> None:
        ids = payload.get("report_request_id")
        code, said = 200, "OK"
        for request_id in ids if isinstance(ids, list) else [ids]:
            try:
                self._reports.cancel(str(request_id), report_to_follow=payload.get("report_to_follow") is True)
            except ReportError as error:
                code, said = error.code, str(error)
        await _answer(client, "oadrCanceledReport", payload, code, said, pending_reports=self._pending())

    def _pending(self) -> list[dict[str, str]]:
        return [{"report_request_id": request_id} for request_id in self._reports.pending()]


async def _answer(
    client: VtnClient, kind: str, payload: Mapping[str, Any], code: int = 200, said: str = "OK", **fields: Any
) -> None:
    asked = payload.get("request_id") or (payload.get("response") or {}).get("request_id")
    response = {"response_code": code, "response_description": said[:200], "request_id": asked}
    await client.ask("EiReport", kind, response=response, **fields)
