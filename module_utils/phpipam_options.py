"""Options that the phpIPAM modules share, and how each of them ends."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ansible.module_utils.basic import AnsibleModule, env_fallback

from .http_api import ApiError
from .phpipam_book import Written
from .phpipam_client import TIMEOUT, PhpIpamClient, PhpIpamError
from .phpipam_plan import Network
from .phpipam_tree import Subnet, exactly
from .problem import Problem, headline, listing, shown


def _from_environment(name: str) -> dict[str, Any]:
    return {"fallback": (env_fallback, [name])}


CONNECTION: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True, **_from_environment("PHPIPAM_URL")},
    "app_id": {"type": "str", "required": True, **_from_environment("PHPIPAM_APP_ID")},
    "app_code": {"type": "str", "no_log": True, **_from_environment("PHPIPAM_APP_CODE")},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "timeout": {"type": "int", "default": TIMEOUT},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "behind_proxy": {"type": "bool", "default": False},
}
ADDRESS_FIELDS: dict[str, dict[str, Any]] = {
    "hostname": {"type": "str"},
    "description": {"type": "str"},
    "tag": {"type": "str"},
    "mac": {"type": "str"},
    "owner": {"type": "str"},
    "note": {"type": "str"},
    "is_gateway": {"type": "bool"},
    "exclude_ping": {"type": "bool"},
    "custom_fields": {"type": "dict"},
}


def connection_faults(options: Mapping[str, Any]) -> None:
    """Refuse options that do not say how to get in.

    Raises:
        ApiError: with what to give.
    """
    if not options["username"] and not options["app_code"]:
        raise ApiError("phpIPAM needs app_code, or username and password: give one of the two.")
    if bool(options["username"]) != bool(options["password"]):
        raise ApiError("username and password belong together: give both, or app_code alone.")


def client_of(options: Mapping[str, Any]) -> PhpIpamClient:
    """The client that the options describe; a user goes before the environment's app code."""
    user = bool(options["username"])
    return PhpIpamClient(
        options["url"],
        options["app_id"],
        app_code=None if user else options["app_code"],
        username=options["username"] if user else None,
        password=options["password"],
        timeout=options["timeout"],
        validate_certs=options["validate_certs"],
        ca_path=options["ca_path"],
        behind_proxy=options["behind_proxy"],
    )


class RefusedError(Exception):
    """Nothing was written; the text says why."""


def network_of(text: str) -> Network:
    """The subnet of the options.

    Raises:
        RefusedError: it is none.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise RefusedError(f"subnet = {shown(text)} is none ({error}). Fix: write one like 192.168.240.0/24.") from None


def subnet_of(subnets: Sequence[Subnet], network: Network) -> Subnet | None:
    """The subnet of a section that is meant; None where there is none.

    Raises:
        RefusedError: several could be.
    """
    found = exactly(subnets, network)
    if len(found) > 1:
        ids = ", ".join(str(subnet["id"]) for subnet in found)
        raise RefusedError(
            f"subnet = {network} is in the section several times ({ids}). Fix: delete all but one of them."
        )
    return found[0] if found else None


def refuse(found: Iterable[Problem]) -> None:
    """Stop when there is any problem.

    Raises:
        RefusedError: with all of them.
    """
    faults = list(found)
    if faults:
        raise RefusedError(f"{headline(faults, 'phpIPAM cannot take this')}:\n{listing(faults)}")


class Run(Protocol):
    """What one module does."""

    def __call__(
        self, client: PhpIpamClient, options: Mapping[str, Any], *, check: bool, written: Written
    ) -> dict[str, Any]:
        """The result, without the number of calls; `written` keeps what was written."""


def finish(module: AnsibleModule, run: Run) -> None:
    """Run a module, and end it with its result or with what was written before it failed."""
    written, calls = Written(), 0
    try:
        connection_faults(module.params)
        client = client_of(module.params)
        try:
            result = run(client, module.params, check=module.check_mode, written=written)
        finally:
            calls = client.calls
    except PhpIpamError as error:
        codes = {"http_status": error.http_status, "api_code": error.api_code}
        module.fail_json(msg=str(error), partial=written.as_dict(), api_calls=calls, **codes)
    except (RefusedError, ApiError) as error:
        module.fail_json(msg=str(error), partial=written.as_dict(), api_calls=calls)
    module.exit_json(api_calls=calls, **result)
