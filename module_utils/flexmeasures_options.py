"""Options that the FlexMeasures modules share, the way they take to FlexMeasures, and how each of them ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from ansible.module_utils.basic import AnsibleModule

from .flexmeasures_client import FlexMeasuresApi, FlexMeasuresClient, FlexMeasuresError, PluginMissingError, Wish
from .flexmeasures_plan import State, naive_times
from .http_api import ApiError
from .problem import Problem, headline, listing, one_of, shown
from .topology_rules import topology_problems

CONNECTION: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "token": {"type": "str", "no_log": True},
    "email": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "host_header": {"type": "str"},
    "timeout": {"type": "int", "default": 60},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}
RULES: dict[str, Any] = {
    "required_one_of": [["token", "email"]],
    "required_together": [["email", "password"]],
}


class RefusedError(Exception):
    """Nothing was written; the text says why."""


class FlexMeasures:
    """One FlexMeasures: through our plugin where it is there and its token is given, else through its own API.

    Attributes:
        through: ``plugin`` or ``api``, which is known after the first call.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        names = ("host_header", "timeout", "validate_certs", "ca_path")
        how = {name: options[name] for name in names}
        self._plugin = FlexMeasuresClient(options["url"], options["token"], **how) if options["token"] else None
        self._api: FlexMeasuresApi | None = None
        if options["email"]:
            self._api = FlexMeasuresApi(options["url"], options["email"], options["password"] or "", **how)
        self.through = "plugin" if self._plugin is not None else "api"

    @property
    def calls(self) -> int:
        """How many requests were sent, tries included."""
        return sum(client.calls for client in (self._plugin, self._api) if client is not None)

    def state(self, account: str, *, data: bool = False) -> State:
        """What an account has."""
        if self.through == "plugin" and self._plugin is not None:
            try:
                return self._plugin.state(account, data=data)
            except PluginMissingError:
                if self._api is None:
                    raise
                self.through = "api"
        return self._own().state(account, data=data)

    def declare(self, wish: Wish, *, dry_run: bool) -> dict[str, Any]:
        """Make FlexMeasures as wished, or ask what that would change."""
        if self.through == "plugin" and self._plugin is not None:
            try:
                return self._plugin.declare(wish, dry_run=dry_run)
            except PluginMissingError:
                if self._api is None:
                    raise
                self.through = "api"
        return self._own().declare(wish, dry_run=dry_run)

    def _own(self) -> FlexMeasuresApi:
        if self._api is None:
            raise ApiError("FlexMeasures needs token, or email and password: give one of the two.")
        return self._api


class Run(Protocol):
    """What one module does."""

    def __call__(self, client: FlexMeasures, options: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
        """The result, without the number of calls; what Ansible is to warn of stands in its `warnings`."""


def finish(module: AnsibleModule, run: Run) -> None:
    """Run a module, and end it with its result or with what was written before it failed."""
    calls = 0
    try:
        client = FlexMeasures(module.params)
        try:
            result = run(client, module.params, check=module.check_mode)
        finally:
            calls = client.calls
    except FlexMeasuresError as error:
        module.fail_json(msg=str(error), partial=error.partial, http_status=error.http_status, api_calls=calls)
    except (RefusedError, ApiError) as error:
        module.fail_json(msg=str(error), partial=[], api_calls=calls)
    for text in result.pop("warnings", ()):
        module.warn(text)
    module.exit_json(api_calls=calls, through=client.through, **result)


def refuse(found: Collection[Problem], subject: str) -> None:
    """Stop when there is any problem.

    Raises:
        RefusedError: with all of them.
    """
    if found:
        raise RefusedError(f"{headline([*found], subject)}:\n{listing([*found])}")


def difference(changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The changes as Ansible shows a diff."""
    return {side: {change["path"]: change[side] for change in changes} for side in ("before", "after")}


def account_of(state: State, name: str) -> None:
    """Refuse an account that is not there.

    Raises:
        RefusedError: with how to make it.
    """
    if ("accounts", name) not in state.entities:
        fix = "make it with flexmeasures_topology, or see that the user may read it"
        raise RefusedError(f"account = {shown(name)}: FlexMeasures has no such account. Fix: {fix}.")


def chain(state: State, name: str) -> dict[str, dict[str, Any]]:
    """An asset and those that it is part of, as they are, in the form of a declaration."""
    assets = state.of("assets")
    found: dict[str, dict[str, Any]] = {}
    following: str | None = name
    while following is not None and following in assets and following not in found:
        fields = assets[following]
        found[following] = {key: fields[key] for key in ("type", "parent", "latitude", "longitude")}
        following = fields["parent"]
    return found


def entry_problems(kind: str, name: str, entry: Mapping[str, Any], *, units: bool) -> Iterator[Problem]:
    """What is wrong with one asset or sensor by itself, with the module's options as names.

    Args:
        kind: assets or sensors.
        name: of the entity.
        entry: what a topology would say of it, without what is not given.
        units: whether a unit that we do not know is a problem; FlexMeasures knows more of them.
    """
    given = {key: value for key, value in entry.items() if value is not None}
    topology: dict[str, Any] = {kind: {name: given}}
    if kind == "sensors":
        topology["assets"] = {str(given.get("asset", "")): {"type": "building"}}
    prefix = f"topology.{kind}.{name}"
    for problem in topology_problems(topology):
        option = problem.variable.removeprefix(prefix).removeprefix(".")
        if not problem.variable.startswith(prefix) or (option == "unit" and not units):
            continue
        # what refers to others is judged with them at hand
        if kind == "assets" and option.partition(".")[0] in ("type", "parent", "flex_context", "flex_model"):
            continue
        if problem.problem != "is missing":
            yield problem._replace(variable=option or "name")
    for which in ("flex_context", "flex_model"):
        yield from naive_times(given.get(which), which)


def as_options(error: FlexMeasuresError, kind: str, name: str, subject: str) -> FlexMeasuresError:
    """The same error, with the module's options as names of what is wrong."""
    if not error.problems or error.partial:
        return error
    prefix = f"topology.{kind}.{name}."
    problems = [each._replace(variable=each.variable.removeprefix(prefix)) for each in error.problems]
    text = f"{headline(problems, subject)}:\n{listing(problems)}"
    return FlexMeasuresError(text, error.http_status, problems, error.partial)


def unknown_asset(option: str, name: str, state: State) -> Problem:
    """The problem with an asset that is not there."""
    return Problem(option, shown(name), "names no asset of the account", one_of(name, state.of("assets")))
