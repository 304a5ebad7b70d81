"""Calls to an HTTP API: one address, one token, bounded tries, no redirect followed."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple

from ansible.module_utils.urls import Request, make_context

from .problem import is_token, shown

TRIES = 4
# The longest that a server's Retry-After is obeyed.
LONGEST_PAUSE_SECONDS = 30.0


class ApiError(Exception):
    """A call failed; the message names status, address and fix, and holds no secret."""


class Answer(NamedTuple):
    """What came back: status 0 stands for no answer at all, with the reason as `body`."""

    status: int
    headers: Message
    body: str

    def told(self) -> Any:
        """The JSON that came back; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def json(self) -> dict[str, Any]:
        """The JSON object that came back; empty when it is anything else."""
        found = self.told()
        return found if isinstance(found, dict) else {}

    def rows(self) -> list[dict[str, Any]] | None:
        """The list of JSON objects that came back; None when it is anything else."""
        found = self.told()
        return found if isinstance(found, list) and all(isinstance(row, dict) for row in found) else None

    def excerpt(self) -> str:
        """The beginning of the body, in one line."""
        return " ".join(self.body[:160].split())


class HttpApi:
    """One server and its token.

    Args:
        url: scheme, host and port of the server, such as ``http://192.168.240.20:5000``.
        token: what goes into ``Authorization: Bearer``.
        example: an address to name when `url` cannot be one.
        host_header: name under which the server is to be asked, when it does not answer to its address.
        timeout: how long one try waits for data, in seconds.
        validate_certs: whether the certificate of an https address is checked.
        ca_path: file with the certificate authorities to check it with; None for the system's.
        headers: what carries the token, in the place of ``Authorization``.
        elsewhere: whether the server may be below a path, and behind a proxy of ours.

    Attributes:
        calls: how many requests were sent, tries included.

    Raises:
        ApiError: the address or the token cannot be one, or `ca_path` holds no certificates.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        example: str,
        host_header: str | None = None,
        timeout: float = 30,
        validate_certs: bool = True,
        ca_path: str | None = None,
        headers: Mapping[str, str] | None = None,
        elsewhere: bool = False,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        path = "" if elsewhere else parts.path.strip("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or path or parts.query:
            raise ApiError(f"url = {shown(url)} is no address: write one such as {example}.")
        if parts.username or parts.password:
            raise ApiError("url holds a user name: write only scheme, host and port; the token is given apart.")
        check_token("token", token)
        self.server = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.calls = 0
        try:  # once: to read the certificate authorities takes longer than most calls
            context = make_context(cafile=ca_path, validate_certs=validate_certs)
        except OSError as error:
            reason = f"cannot be read as certificates ({error})"
            raise ApiError(f"ca_path = {shown(ca_path)} {reason}: give a file in PEM form.") from None
        self._request = Request(
            headers={
                **({"Authorization": f"Bearer {token}"} if headers is None else headers),
                "Content-Type": "application/json",
                "Accept": "application/json",
                **({"Host": host_header} if host_header else {}),
            },
            # A server on a network of the host: no proxy. No other address, and no netrc (it would replace the token).
            use_proxy=elsewhere,
            use_netrc=False,
            follow_redirects="none",
            timeout=timeout,
            context=context,
            # phpIPAM starts a session for each call that comes without its cookie. The cookie is for https, also where
            # we ask by plain http as a proxy does (behind_proxy); it only ever goes back to the server it is from.
            cookies=CookieJar(DefaultCookiePolicy(secure_protocols=("http", "https"))),
        )

    def call(
        self,
        method: str,
        path: str,
        content: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        tries: int | None = None,
    ) -> Answer:
        """Send a request that may be sent again after any failure, because it declares a state or only asks.

        Args:
            method: such as ``PUT``.
            path: from the root of the server.
            content: sent as JSON; None for no body.
            headers: beside those of every request.
            tries: how many there are; None for the usual number.

        Returns:
            The answer of the last try, whatever its status; status 0 when there was none.

        Raises:
            ApiError: the server's certificate is not trusted.
        """
        body = None if content is None else json.dumps(content).encode()
        tries = tries or TRIES
        for attempt in range(1, tries + 1):
            answer = self._try(method, self.server + path, body, headers)
            if not self.passes(answer):
                break
            if attempt < tries:
                time.sleep(pause(answer, attempt))
        return answer

    def passes(self, answer: Answer) -> bool:
        """Whether a failure may pass by itself, so that the request is worth another try."""
        return answer.status in (0, 429) or answer.status >= 500

    def _try(self, method: str, address: str, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        self.calls += 1
        try:
            with self._request.open(method, address, data=body, headers=dict(headers or {})) as response:
                return Answer(response.status, response.headers, response.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read().decode(errors="replace"))
        except ssl.SSLCertVerificationError as error:
            raise _untrusted(address, error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise _untrusted(address, error.reason) from None
            return Answer(0, Message(), str(error.reason))
        except (OSError, HTTPException) as error:  # the connection broke, or no data came in time
            return Answer(0, Message(), str(error) or type(error).__name__)


def check_token(name: str, token: str) -> None:
    """Refuse what no header can hold: the error of the call itself would tell the secret.

    Raises:
        ApiError: with the name of the option.
    """
    if not is_token(token):
        raise ApiError(f"{name} has a blank, a line end or another character that no token has: copy it once more.")


def unanswered(address: str, answer: Answer, container: str) -> ApiError:
    """The error for no answer in any try."""
    return ApiError(
        f"{address} did not answer in {TRIES} tries: {answer.body}. "
        f"Fix: see whether {container} is up ('docker ps') and what it says ('docker logs')."
    )


def redirected(answer: Answer) -> str | None:
    """The fix when the server sends us elsewhere, else None."""
    if not 300 <= answer.status < 400:
        return None
    to = answer.headers.get("Location", "another address")
    return f"let url be the server itself; the token is not sent on to {to}"


def _untrusted(address: str, error: ssl.SSLCertVerificationError) -> ApiError:
    return ApiError(f"{address}: its certificate is not trusted ({error.verify_message}). Fix: set ca_path to its CA.")


def pause(answer: Answer, attempt: int) -> float:
    """How long to wait before the next try: what the server asks for, else 1, 2, 4 s."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdecimal() else float(2 ** (attempt - 1))
