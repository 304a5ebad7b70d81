"""Every difference between Docker, FlexMeasures and the topology is one line, and what is as declared is none."""

from typing import Any

import pytest
from ansible.module_utils.drift_rules import docker_drift, drift_lines, firewall_drift, ipam_drift, topology_drift

NETWORKS = {"inside": {"subnet": "192.168.240.0/24", "internal": False}}
CONTAINERS = {"vtn": {"networks": {"inside": "192.168.240.10"}}, "db": {"networks": {"inside": None}}}
IMAGES = {"vtn": "vtn:1", "db": "db:1"}


def network(**other: Any) -> dict[str, Any]:
    return {"Name": "inside", "Internal": False, "IPAM": {"Config": [{"Subnet": "192.168.240.0/24"}]}, **other}


def container(name: str, address: str = "", **other: Any) -> dict[str, Any]:
    joined = {"Networks": {"inside": {"IPAddress": address}}}
    return {"Names": [f"/{name}"], "Image": f"{name}:1", "State": "running", "NetworkSettings": joined, **other}


VTN, DB = container("vtn", "192.168.240.10"), container("db", "192.168.240.3")


def lines(networks: list[dict[str, Any]], containers: list[dict[str, Any]]) -> list[str]:
    found: list[str] = drift_lines(docker_drift(NETWORKS, CONTAINERS, IMAGES, networks, containers))
    return found


def test_what_is_as_declared_is_no_drift() -> None:
    elsewhere = container("other", NetworkSettings={"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}})
    assert lines([network(), {"Name": "bridge"}], [VTN, DB, elsewhere]) == []


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ([], "network inside: declared 192.168.240.0/24, found missing"),
        (
            [network(IPAM={"Config": [{"Subnet": "10.0.0.0/24"}]})],
            "network inside subnet: declared 192.168.240.0/24, found 10.0.0.0/24",
        ),
        ([network(IPAM={"Config": None})], "network inside subnet: declared 192.168.240.0/24, found none"),
        ([network(Internal=True)], "network inside internal: declared no, found yes"),
    ],
)
def test_a_network_that_differs(found: list[dict[str, Any]], line: str) -> None:
    assert lines(found, [VTN, DB]) == [line]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ([DB], "container vtn: declared running, found missing"),
        ([DB, container("vtn", State="exited")], "container vtn: declared running, found exited"),
        ([DB, VTN | {"Image": "vtn:0"}], "container vtn image: declared vtn:1, found vtn:0"),
        (
            [DB, container("vtn", "192.168.240.9")],
            "container vtn address in inside: declared 192.168.240.10, found 192.168.240.9",
        ),
        ([DB, VTN | {"NetworkSettings": {}}], "container vtn network inside: declared joined, found not joined"),
        ([VTN, DB, container("guest")], "container guest: declared none, found in the network inside"),
    ],
)
def test_a_container_that_differs(found: list[dict[str, Any]], line: str) -> None:
    assert lines([network()], found) == [line]


def test_a_container_in_one_network_too_many() -> None:
    networks = {"inside": {"IPAddress": "192.168.240.10"}, "bridge": {"IPAddress": "172.17.0.2"}}
    both = VTN | {"NetworkSettings": {"Networks": networks}}
    assert lines([network()], [both, DB]) == ["container vtn network bridge: declared not joined, found joined"]


def test_what_flexmeasures_lacks_or_has_otherwise() -> None:
    changes = [
        {"action": "create", "path": "sensors.a", "before": {}, "after": {"id": 7, "unit": "kW"}},
        {"action": "update", "path": "sensors.b", "before": {"name": "x"}, "after": {"name": "b"}},
    ]
    assert drift_lines(topology_drift(changes)) == [
        "FlexMeasures sensors.a: declared id = 7, unit = kW, found missing",
        "FlexMeasures sensors.b: declared name = b, found name = x",
    ]


def test_phpipam_that_is_as_declared_is_no_drift() -> None:
    assert ipam_drift([{"diff": {"before": {}, "after": {}}}, {}]) == []


def test_each_address_of_phpipam_that_differs_is_one_line() -> None:
    before = {"10.0.0.2": {"mac": "00:00:00:00:00:02"}, "10.0.0.9": {"ip": "10.0.0.9", "hostname": "gone"}}
    after = {"10.0.0.2": {"mac": "00:00:00:00:00:03"}, "10.0.0.3": {"ip": "10.0.0.3", "hostname": "web"}}
    assert drift_lines(ipam_drift([{"diff": {"before": before, "after": after}}])) == [
        "phpIPAM 10.0.0.2: declared mac = 00:00:00:00:00:03, found mac = 00:00:00:00:00:02",
        "phpIPAM 10.0.0.3: declared hostname = web, found missing",
        "phpIPAM 10.0.0.9: declared none, found hostname = gone",
    ]


def test_a_subnet_that_phpipam_lacks_is_one_line_without_its_addresses() -> None:
    after = {"10.0.0.0/24": {"description": "devices"}, "10.0.0.1": {"hostname": "gateway"}}
    assert drift_lines(ipam_drift([{"diff": {"before": {}, "after": after}}])) == [
        "phpIPAM 10.0.0.0/24: declared description = devices, found missing"
    ]


def test_each_rule_of_the_firewall_that_differs_is_one_line() -> None:
    before = "active: no\ndefault allow incoming\nallow 80/tcp\nallow 8080\n"
    after = "active: yes\ndefault deny incoming\nallow 80/tcp\nallow 443/tcp\n"
    assert drift_lines(firewall_drift({"before": before, "after": after})) == [
        "firewall: declared active: yes, found active: no",
        "firewall: declared default deny incoming, found default allow incoming",
        "firewall: declared allow 443/tcp, found missing",
        "firewall: declared none, found allow 8080",
    ]
    assert firewall_drift({}) == []


def test_a_difference_is_one_line_whatever_it_holds() -> None:
    held = {"where": "phpIPAM 10.0.0.1", "declared": "description = a\nb", "found": "description = a\r\nc"}
    assert drift_lines([held]) == ["phpIPAM 10.0.0.1: declared description = a b, found description = a c"]
