"""Calls to the HTTP API of our OpenADR VTN, and errors that say what to do."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any

from .http_api import Answer, ApiError, HttpApi, redirected, unanswered
from .problem import Problem, headline, listing, shown

CONTAINER = "openadr-vtn"


class OpenadrClient(HttpApi):
    """Events of one VTN; the token is the content of the VTN's secret ``openadr_api_token``."""

    def __init__(self, url: str, token: str, **options: Any) -> None:
        super().__init__(url, token, example="http://192.168.240.10:8081", **options)

    def event(self, event_id: str) -> dict[str, Any] | None:
        """The current version of an event, or None when there is none of that id.

        Raises:
            ApiError: as for every call: no answer in any try, a refusal, or an answer that is not the VTN's.
        """
        path = _path(event_id)
        answer = self.call("GET", path)
        if answer.status == 404 and _names(answer, event_id):
            return None
        return self._told(path, answer, "event_id")

    def put(self, event_id: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Make an event be as wanted; returns its current version afterwards."""
        return self._event(_path(event_id), "PUT", wanted)

    def preview(self, event_id: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The version that `put` would make, checked by the VTN and not stored."""
        return self._event(f"{_path(event_id)}/preview", "POST", wanted)

    def cancel(self, event_id: str) -> dict[str, Any]:
        """Cancel an event; returns its current version afterwards."""
        return self._event(_path(event_id), "DELETE")

    def _event(self, path: str, method: str, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._told(path, self.call(method, path, content), "event")["event"]
        return found

    def _told(self, path: str, answer: Answer, key: str) -> dict[str, Any]:
        """The content of an answer that has to be a success and to hold a key; an event has to be an object."""
        address = self.server + path
        if answer.status == 0:
            raise unanswered(address, answer, CONTAINER)
        told = answer.json()
        if answer.status not in (200, 201):
            raise ApiError(_refusal(address, answer, told))
        if key not in told or not isinstance(told.get("event", {}), dict):
            raise ApiError(
                f"{address} answered {answer.status}, but not as our VTN does: {answer.excerpt() or 'nothing'}. "
                f"Fix: let url be the API of the VTN itself (container {CONTAINER}, port 8081)."
            )
        return told


def _path(event_id: str) -> str:
    return f"/api/v1/events/{urllib.parse.quote(event_id, safe='')}"


def _names(answer: Answer, event_id: str) -> bool:
    """Whether it is the VTN that says that it has no such event, and not something else at this address."""
    errors = answer.json().get("errors")
    return isinstance(errors, list) and any(event_id in _problem(error).problem for error in errors)


def _refusal(address: str, answer: Answer, told: Mapping[str, Any]) -> str:
    """Why there is no result, and what to do about it."""
    errors = told.get("errors")
    # 401 and 404 concern the call and not the event: the VTN cannot know how the module is told token and address.
    if isinstance(errors, list) and errors and answer.status not in (401, 404):
        found = [_problem(each) for each in errors]
        return f"{headline(found, f'{address} answered {answer.status}')}:\n{listing(found)}"
    fix = redirected(answer) or {
        401: "give the content of the VTN's secret openadr_api_token as token",
        403: "let url be the VTN itself; something in front of it refuses the call",
        404: f"let url be the API of the VTN itself (container {CONTAINER}, port 8081), of this module's version",
        429: "try again later",
    }.get(answer.status, f"see the VTN's log: docker logs {CONTAINER}")
    reason = "" if told or not answer.excerpt() else f" ({answer.excerpt()})"
    return f"{address} answered {answer.status}{reason}. Fix: {fix}."


def _problem(told: Any) -> Problem:
    """A problem as the VTN reports it; its fields are the options of the module."""
    told = told if isinstance(told, dict) else {}
    value = told.get("value")
    fix = str(told.get("fix", "")).rstrip(".")
    return Problem(
        str(told.get("field", "")), None if value is None else shown(value), str(told.get("problem", "")), fix
    )
