# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""What Docker has and FlexMeasures answered against what is declared: one line a difference."""

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


def drift_lines(differences: Sequence[Difference]) -> list[str]:
    """Write each difference as a line."""
    return [f"{one['where']}: declared {one['declared']}, found {one['found']}" for one in differences]


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


def _yes(value: object) -> str:
    return "yes" if value else "no"
