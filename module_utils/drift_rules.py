# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What Docker, FlexMeasures, phpIPAM and the firewall have against what is declared: one line a difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict


class Difference(TypedDict):
    """One difference: where it is, what is declared there and what there is."""

    where: str
    declared: str
    found: str


def docker_drift(
    declared_networks: Mapping[str, Mapping[str, Any]],
    declared_containers: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, str],
    networks: Iterable[Mapping[str, Any]],
    containers: Iterable[Mapping[str, Any]],
) -> list[Difference]:
    """Compare Docker with the topology.

    Args:
        declared_networks: the topology's.
        declared_containers: the topology's, without those that this host leaves out.
        images: container -> the image that it has to run.
        networks: as Docker's API lists them.
        containers: as Docker's API lists them, those that do not run too.

    Returns:
        The differences: networks, containers, and then containers that are in a network of ours and not declared.
    """
    there = {str(network["Name"]): network for network in networks}
    running = {str(name).lstrip("/"): one for one in containers for name in one.get("Names") or ()}
    found: list[Difference] = []
    for name, network in declared_networks.items():
        found += _network(name, network, there.get(name))
    for name, container in declared_containers.items():
        found += _container(name, container, images.get(name), running.get(name))
    for name in sorted(set(running) - set(declared_containers)):
        for joined in sorted(set(_joined(running[name])) & set(declared_networks)):
            found.append(_difference(f"container {name}", "none", f"in the network {joined}"))
    return found


def topology_drift(changes: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Tell what FlexMeasures lacks, or has otherwise.

    Args:
        changes: what `flexmeasures_topology` would change.
    """
    return [
        _difference(
            f"FlexMeasures {change['path']}",
            _fields(change["after"]),
            "missing" if change["action"] == "create" else _fields(change["before"]),
        )
        for change in changes
    ]


def ipam_drift(results: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Tell what phpIPAM lacks, has otherwise, or has of ours and should not.

    Args:
        results: what `phpipam_subnet` would change, a result a subnet; failed ones are left out.
    """
    found: list[Difference] = []
    for result in results:
        diff = result.get("diff") or {}
        before, after = diff.get("before") or {}, diff.get("after") or {}
        changed = [*after, *(key for key in before if key not in after)]
        whole = [key for key in changed if "/" in key and key not in before]
        # of a subnet that is missing as a whole, its addresses are no news
        for key in whole or changed:
            declared = _told(after[key]) if key in after else "none"
            found.append(_difference(f"phpIPAM {key}", declared, _told(before[key]) if key in before else "missing"))
    return found


def firewall_drift(diff: Mapping[str, str]) -> list[Difference]:
    """Tell which rules and policies of the firewall are missing, or ours and not declared.

    Args:
        diff: what `ufw_state` would change, as texts of a line a rule.
    """
    before, after = (
        {_subject(line): line for line in str(diff.get(name) or "").splitlines()} for name in ("before", "after")
    )
    return [
        _difference("firewall", after.get(subject, "none"), before.get(subject, "missing"))
        for subject in {**after, **before}
        if after.get(subject) != before.get(subject)
    ]


def _subject(line: str) -> str:
    """What a line of the firewall is about: whether it is on, a direction's policy, or the rule itself."""
    if line.startswith("active: "):
        return "active"
    return "default " + line.split()[-1] if line.startswith("default ") else line


def drift_lines(differences: Sequence[Difference]) -> list[str]:
    """Write each difference as a line, whatever it holds."""
    told = (f"{one['where']}: declared {one['declared']}, found {one['found']}" for one in differences)
    return [" ".join(text.splitlines()) for text in told]


def _network(name: str, declared: Mapping[str, Any], found: Mapping[str, Any] | None) -> Iterator[Difference]:
    where = f"network {name}"
    if found is None:
        yield _difference(where, str(declared["subnet"]), "missing")
        return
    subnets = [str(one.get("Subnet")) for one in (found.get("IPAM") or {}).get("Config") or ()]
    if declared["subnet"] not in subnets:
        yield _difference(f"{where} subnet", str(declared["subnet"]), ", ".join(subnets) or "none")
    if bool(declared.get("internal")) != bool(found.get("Internal")):
        yield _difference(f"{where} internal", _yes(declared.get("internal")), _yes(found.get("Internal")))


def _container(
    name: str, declared: Mapping[str, Any], image: str | None, found: Mapping[str, Any] | None
) -> Iterator[Difference]:
    where = f"container {name}"
    if found is None:
        yield _difference(where, "running", "missing")
        return
    if found.get("State") != "running":
        yield _difference(where, "running", str(found.get("State")))
    if image is not None and found.get("Image") != image:
        yield _difference(f"{where} image", image, str(found.get("Image")))
    joined, wanted = _joined(found), declared["networks"]
    for network, address in wanted.items():
        if network not in joined:
            yield _difference(f"{where} network {network}", "joined", "not joined")
        # a container that does not run has no address
        elif address and found.get("State") == "running" and joined[network] != address:
            yield _difference(f"{where} address in {network}", str(address), joined[network] or "none")
    for network in sorted(set(joined) - set(wanted)):
        yield _difference(f"{where} network {network}", "not joined", "joined")


def _joined(container: Mapping[str, Any]) -> dict[str, str]:
    """Network -> the container's address in it."""
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return {str(name): str((one or {}).get("IPAddress") or "") for name, one in networks.items()}


def _difference(where: str, declared: str, found: str) -> Difference:
    return {"where": where, "declared": declared, "found": found}


def _fields(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in fields.items()) or "nothing"


def _told(fields: Mapping[str, Any]) -> str:
    """Fields of phpIPAM without the address itself, which stands beside them."""
    return _fields({name: value for name, value in fields.items() if name != "ip"})


def _yes(value: object) -> str:
    return "yes" if value else "no"
