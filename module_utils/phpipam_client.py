"""Calls to phpIPAM's REST API (1.7.4 and 1.8.2), judged by what the body says, and errors that say what to do."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Mapping
from typing import Any

from .http_api import Answer, ApiError, HttpApi, check_token, redirected
from .phpipam_plan import CODE_LENGTH

# phpIPAM waits 30 s for its own lock before it gives up.
TIMEOUT = 45
# What a lookup without a hit answers; the texts differ by language and version.
_NOTHING = 404
LOGIN = "/user/"
_BLOCKED = "after 10 bad logins phpIPAM refuses everything from this address for 5 minutes"


class PhpIpamError(ApiError):
    """A call failed.

    Attributes:
        http_status: of the answer; 0 when there was none.
        api_code: what the body gives as code; None where it gives none.
    """

    def __init__(self, message: str, http_status: int = 0, api_code: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.api_code = api_code


class PhpIpamClient(HttpApi):
    """One phpIPAM and one of its API apps, with the app's code or a user's name and password."""

    def __init__(
        self,
        url: str,
        app_id: str,
        *,
        app_code: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float = TIMEOUT,
        validate_certs: bool = True,
        ca_path: str | None = None,
        behind_proxy: bool = False,
    ) -> None:
        super().__init__(
            url,
            "",
            example="https://ipam.example.org",
            timeout=timeout,
            validate_certs=validate_certs,
            ca_path=ca_path,
            headers={"X-Forwarded-Proto": "https"} if behind_proxy else {},
            elsewhere=not behind_proxy,
        )
        if app_code and len(app_code) > CODE_LENGTH:
            raise PhpIpamError(f"app_code has {len(app_code)} characters: phpIPAM keeps {CODE_LENGTH} at most.")
        check_token("app_code", app_code or "")
        self._app = f"/api/{urllib.parse.quote(app_id, safe='')}"
        self._token = app_code
        self._user = None if username is None else (username, password or "")

    def passes(self, answer: Answer) -> bool:
        """phpIPAM answers 500 to much that no other try makes better; what is not its own answer may pass."""
        return answer.status in (0, 429) or (answer.status >= 502 and not answer.json())

    def ask(self, path: str) -> Any:
        """What is at a path below the app; None where phpIPAM has nothing.

        Raises:
            PhpIpamError: any other answer, or none.
        """
        answer = self._authorized("GET", path)
        if answer.json().get("code") == _NOTHING:
            return None
        return self._told("GET", path, answer).get("data")

    def rows(self, path: str) -> list[dict[str, Any]]:
        """The rows at a path; none where phpIPAM has nothing."""
        found = self.ask(path)
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def change(
        self, method: str, path: str, content: Mapping[str, Any] | None = None, *, tries: int | None = None
    ) -> dict[str, Any]:
        """Make a change; the body of the answer, which says of itself that it succeeded.

        Args:
            method: POST, PATCH or DELETE.
            path: below the app.
            content: the fields.
            tries: 1 for what must not happen twice.
        """
        return self._told(method, path, self._authorized(method, path, content, tries))

    def _authorized(
        self, method: str, path: str, content: Mapping[str, Any] | None = None, tries: int | None = None
    ) -> Answer:
        fresh = self._token is None
        answer = self._sent(method, path, content, tries)
        # 401 is also what an app without the right gets: a new login helps only when the token is an old one
        if answer.status == 401 and self._user is not None and not fresh:
            self._token = None
            answer = self._sent(method, path, content, tries)
        return answer

    def _sent(self, method: str, path: str, content: Mapping[str, Any] | None, tries: int | None) -> Answer:
        if self._token is None:
            self._token = self._login()
        return self.call(method, self._app + path, content, headers={"token": self._token}, tries=tries)

    def _login(self) -> str:
        """A token for the user: the same one for all logins, so that nobody may ever log out."""
        name, password = self._user or ("", "")
        basic = base64.b64encode(f"{name}:{password}".encode()).decode()
        answer = self.call("POST", f"{self._app}{LOGIN}", headers={"Authorization": f"Basic {basic}"})
        data = self._told("POST", LOGIN, answer).get("data")
        token = data.get("token") if isinstance(data, dict) else None
        if not isinstance(token, str):
            raise PhpIpamError(f"{self.server}{self._app}{LOGIN} gave no token. Fix: let url be phpIPAM itself.")
        return token

    def _told(self, method: str, path: str, answer: Answer) -> dict[str, Any]:
        address = f"{method} {self.server}{self._app}{path}"
        if answer.status == 0:
            raise PhpIpamError(f"{address}: no answer: {answer.body}. Fix: see whether phpIPAM is up and url right.")
        told = answer.json()
        code = told.get("code")
        if told.get("success") is True and isinstance(code, int) and 200 <= code < 300:
            return told
        code = code if isinstance(code, int) else None
        reason = str(told.get("message") or answer.excerpt() or "nothing")
        fix = _fix(method, path, answer, code)
        raise PhpIpamError(f"{address} answered {answer.status} ({reason}). Fix: {fix}.", answer.status, code)


def _fix(method: str, path: str, answer: Answer, code: int | None) -> str:
    """What to do. By what was asked and the number of the answer: its text may be in any language."""
    if not answer.json():
        # phpIPAM's login page, or a proxy's error
        return redirected(answer) or "let url be the address of phpIPAM, without /api: this answer is not its API's"
    if code == 401 and method != "GET":  # what it read before was allowed to it
        return "give the API app the permission Read / Write: phpIPAM > Administration > API"
    if code == 500 and path == LOGIN:
        return f"check username and password; {_BLOCKED}"
    return {
        400: "check app_id, and that this phpIPAM is 1.7.4 or later",
        401: "check app_code, and that the API app's security is 'SSL with App code token'",
        403: "check app_code: it belongs to another app, or the user's token has expired",
        404: "run this again: somebody deleted meanwhile what it is about",
        409: "see what is there already",
        415: "let no proxy in between drop the Content-Type",
        500: f"run this again if somebody else was writing, else see phpIPAM's log; {_BLOCKED}",
        503: "turn on the API, and the app with security 'SSL with App code token', and use https or behind_proxy: "
        "phpIPAM > Administration",
    }.get(code or answer.status, "see phpIPAM's log")
