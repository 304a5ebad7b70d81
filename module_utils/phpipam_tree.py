"""The subnets of one phpIPAM section: which one is meant, what is within it, what a new one would overlap. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .phpipam_plan import Network, Wanted
from .problem import Problem

Subnet = Mapping[str, Any]


def network(subnet: Subnet) -> Network | None:
    """Where a subnet is; None for a folder, which is nowhere."""
    try:
        return ipaddress.ip_network(cidr(subnet), strict=False)
    except ValueError:
        return None


def cidr(subnet: Subnet) -> str:
    """A subnet as it is written."""
    return f"{subnet.get('subnet')}/{subnet.get('mask')}"


def exactly(subnets: Iterable[Subnet], wanted: Network) -> list[Subnet]:
    """Those of just this CIDR: one at the most, where the section is strict."""
    return [subnet for subnet in subnets if cidr(subnet) == str(wanted)]


def below(subnets: Sequence[Subnet], subnet_id: int) -> list[Subnet]:
    """The subnets within a subnet, and those within them: all that goes when it is deleted."""
    children = [subnet for subnet in subnets if str(subnet.get("masterSubnetId")) == str(subnet_id)]
    return [*children, *(each for child in children for each in below(subnets, int(child["id"])))]


def above(subnets: Sequence[Subnet], subnet_id: int) -> list[Subnet]:
    """The subnets that a subnet is within, from the inside to the outside."""
    by_id = {str(subnet["id"]): subnet for subnet in subnets}
    around = by_id.get(str(by_id[str(subnet_id)].get("masterSubnetId")))
    return [] if around is None else [around, *above(subnets, int(around["id"]))]


def overlapping(subnets: Iterable[Subnet], wanted: Network) -> list[Subnet]:
    """The subnets for which phpIPAM refuses a new one, in a section that is strict. Another VRF is another network."""
    return [
        subnet
        for subnet in subnets
        if (other := network(subnet)) is not None
        and other.version == wanted.version
        and other.overlaps(wanted)
        and str(subnet.get("isFolder") or 0) == "0"
        and str(subnet.get("vrfId") or 0) == "0"
    ]


def misplaced(created: Iterable[Wanted], children: Sequence[Subnet]) -> Iterator[Problem]:
    """New addresses that would be in the range of a subnet within theirs: phpIPAM takes them, and they are in two."""
    places = [place for child in children if (place := network(child)) is not None]
    for one in created:
        around = [place for place in places if ipaddress.ip_address(one.ip) in place]
        if around:
            innermost = max(around, key=lambda place: place.prefixlen)
            fix = f"declare it in {innermost}, or delete that subnet"
            yield Problem("addresses", one.ip, f"is in {innermost}, a subnet within this one", fix)
