# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What an address book is to hold of the topology and of the addresses that containers really have."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypedDict
from urllib.parse import urlsplit

from .phpipam_plan import CODE_LENGTH, Address
from .problem import Problem, is_token, shown

GATEWAY = "gateway"


class Subnet(TypedDict):
    """A subnet as the module `phpipam_subnet` takes it."""

    subnet: str
    description: str
    match_by: str
    addresses: list[dict[str, Any]]


def ipam_subnets(
    networks: Mapping[str, Mapping[str, Any]],
    containers: Mapping[str, Mapping[str, Any]],
    descriptions: Mapping[str, str],
    found_networks: Iterable[Mapping[str, Any]] = (),
    found_containers: Iterable[Mapping[str, Any]] = (),
) -> list[Subnet]:
    """List the subnets with their gateways, containers and reserved ranges.

    Args:
        networks: the topology's.
        containers: the topology's.
        descriptions: container -> what stands beside it, such as its public name.
        found_networks: as Docker's API lists them; none where Docker does not answer.
        found_containers: as Docker's API lists them.

    Returns:
        A subnet a network. A container has the address that it really has, else the declared one; one that has neither
        is left out. Containers are recognized by their hostnames where addresses move, by their addresses where a range
        is reserved, which has no hostname.
    """
    there = {str(network["Name"]): network for network in found_networks}
    joined = {
        str(name).lstrip("/"): (one.get("NetworkSettings") or {}).get("Networks") or {}
        for one in found_containers
        for name in one.get("Names") or ()
    }
    made: list[Subnet] = []
    for name, network in networks.items():
        addresses = [_gateway(network, there.get(name))]
        for container, declared in containers.items():
            if name in declared["networks"]:
                has = (joined.get(container) or {}).get(name) or {}
                ip = has.get("IPAddress") or declared["networks"][name]
                mac = {"mac": has["MacAddress"]} if has.get("IPAddress") and has.get("MacAddress") else {}
                if ip:
                    text = descriptions.get(container, "")
                    addresses.append({"ip": ip, "hostname": container, "description": text, "tag": "Used", **mac})
        reserved = network.get("reserved")
        if reserved:
            taken = {ipaddress.ip_address(one["ip"]) for one in addresses}
            about = {"description": "reserved", "tag": "Reserved"}
            addresses += [{"range": text, **about} for text in _free(reserved, taken)]
        made.append(
            {
                "subnet": str(network["subnet"]),
                "description": name,
                "match_by": "ip" if reserved else "hostname",
                # phpIPAM's scans would change the tags
                "addresses": [{**one, "exclude_ping": True} for one in addresses],
            }
        )
    return made


def _gateway(network: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The host's own address in a network: the one that Docker has, else the first."""
    subnet = ipaddress.ip_network(network["subnet"])
    config = ((found or {}).get("IPAM") or {}).get("Config") or ()
    known = [str(one["Gateway"]) for one in config if one.get("Gateway") and one.get("Subnet") == str(subnet)]
    return {"ip": known[0] if known else str(subnet[1]), "hostname": GATEWAY, "tag": "Used", "is_gateway": True}


def _deploy_problems(values: Mapping[str, Any], domains: Collection[str]) -> Iterator[Problem]:
    if "phpipam" not in domains:
        fix = "write the name by which phpIPAM is to be found, as {domains: {phpipam: ipam.example.org}}"
        yield Problem("topology_overrides", None, "declares no domains.phpipam, and phpipam_deploy is true", fix)
    for name in ("phpipam_url", "phpipam_username"):
        if values.get(name):
            fix = "remove it, or set phpipam_deploy: false to keep a phpIPAM of your own"
            yield Problem(name, shown(values[name]), "is for another phpIPAM than the one of phpipam_deploy", fix)


def _free(text: str, taken: Iterable[Address]) -> Iterator[str]:
    """A range without the addresses that something has: the ranges that are left of it."""
    first, last = (ipaddress.ip_address(end.strip()) for end in text.split("-"))
    start = int(first)
    within = (int(one) for one in taken if one.version == first.version and int(first) <= int(one) <= int(last))
    for number in (*sorted(within), None):
        end = int(last) if number is None else number - 1
        if start <= end:
            yield f"{type(first)(start)}-{type(first)(end)}"
        start = end + 2


def ipam_problems(values: Mapping[str, Any], domains: Collection[str] = ()) -> Iterator[Problem]:
    """What keeps the role phpipam from getting into phpIPAM, or phpIPAM from being deployed.

    Args:
        values: the role's variables, as far as they can be known.
        domains: the names of those that the topology declares.
    """
    url = values.get("phpipam_url")
    if values.get("phpipam_deploy") is True:
        yield from _deploy_problems(values, domains)
        return
    if not url or not isinstance(url, str):
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/").split("/")[-1] == "api":
        fix = "write phpIPAM's address without /api, as https://ipam.example.org"
        yield Problem("phpipam_url", shown(url), "is no address of a phpIPAM", fix)
    code, user, password = (str(values.get(f"phpipam_{name}") or "") for name in ("app_code", "username", "password"))
    if len(code) > CODE_LENGTH:
        fix = "copy it from phpIPAM > Administration > API once more"
        yield Problem("vault_phpipam_app_code", None, f"has more than {CODE_LENGTH} characters", fix)
    if not is_token(code):
        problem = "has a blank, a line end or another character that no code has"
        fix = "copy it from phpIPAM > Administration > API once more, into one line"
        yield Problem("vault_phpipam_app_code", None, problem, fix)
    if user and not password:
        fix = "write it into vault.yml, or remove phpipam_username"
        yield Problem("vault_phpipam_password", None, f"is not set, and phpipam_username is {shown(user)}", fix)
    if not user and not code:
        fix = "copy the code of the API app (phpIPAM > Administration > API) into vault.yml, or remove phpipam_url"
        yield Problem("vault_phpipam_app_code", None, "is not set, and phpipam_url is", fix)
