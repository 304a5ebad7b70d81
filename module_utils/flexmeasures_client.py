"""Calls to our FlexMeasures plugin: one address, one token, bounded tries, and errors that say what to do."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from typing import Any, NamedTuple

from ansible.module_utils.urls import Request

from .problem import Problem, headline, listing, shown

PATH = "/cariflex/v1/topology"
TRIES = 4
# The longest that a server's Retry-After is obeyed.
LONGEST_PAUSE_SECONDS = 30.0


class FlexMeasuresError(Exception):
    """A call failed; the message names status, address and fix, and holds no secret."""


class Answer(NamedTuple):
    """What came back: status 0 stands for no answer at all, with the reason as `body`."""

    status: int
    headers: Message
    body: str


class FlexMeasuresClient:
    """Declares topologies at one FlexMeasures.

    Args:
        url: scheme, host and port of the FlexMeasures server, such as ``http://192.168.240.20:5000``.
        token: content of the server's ``flexmeasures_topology_token``.
        host_header: name under which FlexMeasures is to be asked, when the address is none of its trusted hosts.
        timeout: how long one try waits for data, in seconds.
        validate_certs: whether the certificate of an https address is checked.
        ca_path: file with the certificate authorities to check it with; None for the system's.

    Attributes:
        calls: how many requests were sent, tries included.

    Raises:
        FlexMeasuresError: the address cannot be one.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        host_header: str | None = None,
        timeout: float = 30,
        validate_certs: bool = True,
        ca_path: str | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise FlexMeasuresError(f"url = {shown(url)} is no address: write one such as http://192.168.240.20:5000.")
        if parts.username or parts.password:
            raise FlexMeasuresError(
                "url holds a user name: write only scheme, host and port; the token is given apart."
            )
        self.address = f"{parts.scheme}://{parts.netloc}{PATH}"
        self.calls = 0
        self._request = Request(
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                **({"Host": host_header} if host_header else {}),
            },
            # The server is on a network of the host: no proxy, no other address, no netrc (it would replace the token).
            use_proxy=False,
            use_netrc=False,
            follow_redirects="none",
            timeout=timeout,
            validate_certs=validate_certs,
            ca_path=ca_path,
        )

    def declare(self, topology: Mapping[str, Any], passwords: Mapping[str, str], *, dry_run: bool) -> dict[str, Any]:
        """Make FlexMeasures equal to a topology, or only ask what that would change.

        It may be sent again after any failure: it declares a state, in one transaction.

        Args:
            topology: account, timezone, users, asset_types, assets and sensors.
            passwords: e-mail address -> password.
            dry_run: whether to change nothing.

        Returns:
            The plugin's answer with ``changed``, ``changes``, ``counts`` and ``undeclared``.

        Raises:
            FlexMeasuresError: no answer in any try, a refusal, or an answer that is not the plugin's.
        """
        body = json.dumps({"topology": topology, "passwords": passwords, "dry_run": dry_run}).encode()
        for attempt in range(1, TRIES + 1):
            answer = self._post(body)
            if answer.status not in (0, 429) and answer.status < 500:
                break
            if attempt < TRIES:
                time.sleep(_pause(answer, attempt))
        if answer.status != 200:
            raise FlexMeasuresError(self._refusal(answer))
        return self._result(answer)

    def _post(self, body: bytes) -> Answer:
        self.calls += 1
        try:
            with self._request.open("POST", self.address, data=body) as response:
                return Answer(response.status, response.headers, response.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read().decode(errors="replace"))
        except ssl.SSLCertVerificationError as error:
            raise FlexMeasuresError(self._certificate(error)) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise FlexMeasuresError(self._certificate(error.reason)) from None
            return Answer(0, Message(), str(error.reason))
        except (OSError, HTTPException) as error:  # the connection broke, or no data came in time
            return Answer(0, Message(), str(error) or type(error).__name__)

    def _certificate(self, error: ssl.SSLCertVerificationError) -> str:
        return f"{self.address}: its certificate is not trusted ({error.verify_message}). Fix: set ca_path to its CA."

    def _refusal(self, answer: Answer) -> str:
        """Why there is no result, and what to do about it."""
        if answer.status == 0:
            return (
                f"{self.address} did not answer in {TRIES} tries: {answer.body}. "
                "Fix: see whether flexmeasures-server is up ('docker ps') and what it says ('docker logs')."
            )
        told = _json(answer.body)
        problems = told.get("problems")
        if isinstance(problems, list) and problems:
            found = [_problem(each) for each in problems]
            return f"{headline(found, f'{self.address} answered {answer.status}')}:\n{listing(found)}"
        reason = told.get("message") or _excerpt(answer.body)
        return f"{self.address} answered {answer.status}{f' ({reason})' if reason else ''}. Fix: {_fix(answer)}."

    def _result(self, answer: Answer) -> dict[str, Any]:
        result = _json(answer.body)
        if not isinstance(result.get("changed"), bool) or not isinstance(result.get("changes"), list):
            raise FlexMeasuresError(
                f"{self.address} answered 200, but not as our plugin does: {_excerpt(answer.body) or 'nothing'}. "
                "Fix: let url be the FlexMeasures server itself, and see that its plugin is as new as this module."
            )
        return result


def _pause(answer: Answer, attempt: int) -> float:
    """How long to wait before the next try: what the server asks for, else 1, 2, 4 s."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdecimal() else float(2 ** (attempt - 1))


def _fix(answer: Answer) -> str:
    if 300 <= answer.status < 400:
        to = answer.headers.get("Location", "another address")
        return f"let url be the server itself; the token is not sent on to {to}"
    return {
        400: "if the host is not trusted, add it to TRUSTED_HOSTS in flexmeasures.cfg or set host_header",
        401: "give the content of the server's secret flexmeasures_topology_token as token",
        403: "let url be the server itself; something in front of it refuses the call",
        404: 'load our plugin: FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"] in flexmeasures.cfg',
        413: "declare less at once",
        429: "try again later",
    }.get(answer.status, "see the server's log: docker logs flexmeasures-server")


def _problem(told: Any) -> Problem:
    """A problem as the plugin reports it; its paths begin below the topology."""
    told = told if isinstance(told, dict) else {}
    path = str(told.get("path", ""))
    variable = f"user_{path}" if path.startswith("passwords") else f"topology.{path}"
    value = told.get("value")
    fix = str(told.get("fix", "")).rstrip(".")
    return Problem(variable, None if value is None else shown(value), str(told.get("problem", "")), fix)


def _json(body: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _excerpt(body: str) -> str:
    """The beginning of a text, in one line."""
    return " ".join(body[:160].split())
