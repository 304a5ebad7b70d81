"""Calls to our FlexMeasures plugin, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .http_api import Answer, ApiError, HttpApi, redirected, unanswered
from .problem import Problem, headline, listing, shown

PATH = "/cariflex/v1/topology"
CONTAINER = "flexmeasures-server"


class FlexMeasuresClient(HttpApi):
    """Declares topologies at one FlexMeasures; the token is the server's ``flexmeasures_topology_token``."""

    def __init__(self, url: str, token: str, **options: Any) -> None:
        super().__init__(url, token, example="http://192.168.240.20:5000", **options)
        self.address = self.server + PATH

    def declare(self, topology: Mapping[str, Any], passwords: Mapping[str, str], *, dry_run: bool) -> dict[str, Any]:
        """Make FlexMeasures equal to a topology in one transaction, or only ask what that would change.

        Args:
            topology: account, timezone, users, asset_types, assets and sensors.
            passwords: e-mail address -> password.
            dry_run: whether to change nothing.

        Returns:
            The plugin's answer with ``changed``, ``changes``, ``counts`` and ``undeclared``.

        Raises:
            ApiError: no answer in any try, a refusal, or an answer that is not the plugin's.
        """
        answer = self.call("POST", PATH, {"topology": topology, "passwords": passwords, "dry_run": dry_run})
        if answer.status == 0:
            raise unanswered(self.address, answer, CONTAINER)
        if answer.status != 200:
            raise ApiError(self._refusal(answer))
        return self._result(answer)

    def _refusal(self, answer: Answer) -> str:
        """Why there is no result, and what to do about it."""
        told = answer.json()
        problems = told.get("problems")
        if isinstance(problems, list) and problems:
            found = [_problem(each) for each in problems]
            return f"{headline(found, f'{self.address} answered {answer.status}')}:\n{listing(found)}"
        reason = told.get("message") or answer.excerpt()
        return f"{self.address} answered {answer.status}{f' ({reason})' if reason else ''}. Fix: {_fix(answer)}."

    def _result(self, answer: Answer) -> dict[str, Any]:
        result = answer.json()
        if not isinstance(result.get("changed"), bool) or not isinstance(result.get("changes"), list):
            raise ApiError(
                f"{self.address} answered 200, but not as our plugin does: {answer.excerpt() or 'nothing'}. "
                "Fix: let url be the FlexMeasures server itself, and see that its plugin is as new as this module."
            )
        return result


def _fix(answer: Answer) -> str:
    return redirected(answer) or {
        400: "if the host is not trusted, add it to TRUSTED_HOSTS in flexmeasures.cfg or set host_header",
        401: "give the content of the server's secret flexmeasures_topology_token as token",
        403: "let url be the server itself; something in front of it refuses the call",
        404: 'load our plugin: FLEXMEASURES_PLUGINS = ["cariflex.fm_plugin"] in flexmeasures.cfg',
        413: "declare less at once",
        429: "try again later",
    }.get(answer.status, f"see the server's log: docker logs {CONTAINER}")


def _problem(told: Any) -> Problem:
    """A problem as the plugin reports it; its paths begin below the topology."""
    told = told if isinstance(told, dict) else {}
    path = str(told.get("path", ""))
    variable = f"user_{path}" if path.startswith("passwords") else f"topology.{path}"
    value = told.get("value")
    fix = str(told.get("fix", "")).rstrip(".")
    return Problem(variable, None if value is None else shown(value), str(told.get("problem", "")), fix)
