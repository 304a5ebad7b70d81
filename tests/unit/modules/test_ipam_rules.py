"""What the address book is to hold: the topology, and the addresses that containers really have."""

from typing import Any

import pytest
from ansible.module_utils.ipam_rules import ipam_problems, ipam_subnets

NETWORKS = {
    "devices": {"subnet": "192.168.240.0/24", "reserved": "192.168.240.128-192.168.240.254"},
    "public": {"subnet": "172.29.0.0/16"},
}
CONTAINERS = {
    "vtn": {"networks": {"devices": "192.168.240.10", "public": None}},
    "web": {"networks": {"public": None}},
}


def docker(container: str, **networks: tuple[str, str]) -> dict[str, Any]:
    joined = {name: {"IPAddress": ip, "MacAddress": mac} for name, (ip, mac) in networks.items()}
    return {"Names": [f"/{container}"], "NetworkSettings": {"Networks": joined}}


def addresses(*found: dict[str, Any], networks: tuple[dict[str, Any], ...] = ()) -> dict[str, list[dict[str, Any]]]:
    made = ipam_subnets(NETWORKS, CONTAINERS, {"web": "ems.example.org"}, networks, found)
    return {subnet["description"]: subnet["addresses"] for subnet in made}


def test_before_anything_runs_it_is_what_is_declared() -> None:
    devices, public = ipam_subnets(NETWORKS, CONTAINERS, {})
    assert (devices["subnet"], devices["match_by"]) == ("192.168.240.0/24", "ip")
    assert (public["subnet"], public["match_by"]) == ("172.29.0.0/16", "hostname")
    gateway = {"hostname": "gateway", "tag": "Used", "is_gateway": True, "exclude_ping": True}
    assert public["addresses"] == [{"ip": "172.29.0.1", **gateway}]
    assert devices["addresses"] == [
        {"ip": "192.168.240.1", **gateway},
        {"ip": "192.168.240.10", "hostname": "vtn", "description": "", "tag": "Used", "exclude_ping": True},
        {
            "range": "192.168.240.128-192.168.240.254",
            "description": "reserved",
            "tag": "Reserved",
            "exclude_ping": True,
        },
    ]


def test_a_container_has_the_address_and_the_mac_that_docker_gave_it() -> None:
    found = addresses(
        docker("web", public=("172.29.0.7", "02:42:ac:1d:00:07")), docker("other", public=("1.2.3.4", ""))
    )
    assert [(one["hostname"], one["ip"], one.get("mac"), one.get("description")) for one in found["public"]] == [
        ("gateway", "172.29.0.1", None, None),
        ("web", "172.29.0.7", "02:42:ac:1d:00:07", "ems.example.org"),
    ]


def test_a_container_that_does_not_run_keeps_its_declared_address_only() -> None:
    found = addresses(docker("vtn", devices=("", ""), public=("", "")))
    assert [one.get("ip") for one in found["devices"]] == ["192.168.240.1", "192.168.240.10", None]
    assert [one["hostname"] for one in found["public"]] == ["gateway"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ([{"Subnet": "172.29.0.0/16", "Gateway": "172.29.255.254"}], "172.29.255.254"),
        ([{"Subnet": "172.29.0.0/16"}], "172.29.0.1"),
        ([{"Subnet": "10.0.0.0/8", "Gateway": "10.0.0.1"}], "172.29.0.1"),
        (None, "172.29.0.1"),
    ],
)
def test_the_gateway_is_dockers_or_the_first_address(config: Any, expected: str) -> None:
    found = addresses(networks=({"Name": "public", "IPAM": {"Config": config}},))
    assert found["public"][0]["ip"] == expected


@pytest.mark.parametrize(
    ("taken", "ranges"),
    [
        ("192.168.240.128", ["192.168.240.129-192.168.240.254"]),
        ("192.168.240.254", ["192.168.240.128-192.168.240.253"]),
        ("192.168.240.200", ["192.168.240.128-192.168.240.199", "192.168.240.201-192.168.240.254"]),
    ],
)
def test_a_reserved_range_leaves_out_what_a_container_has(taken: str, ranges: list[str]) -> None:
    found = addresses(docker("vtn", devices=(taken, "")))
    assert [one["range"] for one in found["devices"] if "range" in one] == ranges


GOOD = {"phpipam_url": "https://ipam.example.org", "phpipam_app_code": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("values", "variable", "problem"),
    [
        ({"phpipam_url": "ipam.example.org"}, "phpipam_url", "is no address of a phpIPAM"),
        ({"phpipam_url": "https://ipam.example.org/api/"}, "phpipam_url", "is no address of a phpIPAM"),
        ({"phpipam_app_code": ""}, "vault_phpipam_app_code", "is not set"),
        ({"phpipam_app_code": "x" * 33}, "vault_phpipam_app_code", "more than 32 characters"),
        ({"phpipam_app_code": "0123456789abcdef\n"}, "vault_phpipam_app_code", "a line end"),
        ({"phpipam_username": "ems"}, "vault_phpipam_password", "is not set"),
    ],
)
def test_what_cannot_work_is_refused_by_name(values: dict[str, str], variable: str, problem: str) -> None:
    (found,) = ipam_problems({**GOOD, **values})
    assert found.variable == variable
    assert problem in found.problem


@pytest.mark.parametrize(
    "values",
    [
        GOOD,
        {"phpipam_url": "https://ipam.example.org/ipam", "phpipam_username": "ems", "phpipam_password": "secret"},
        {"phpipam_url": ""},
        {"phpipam_url": 7},  # its type is refused elsewhere
        {},
        {"phpipam_deploy": True, "phpipam_app_code": "x" * 40},
    ],
)
def test_what_can_work_is_no_problem(values: dict[str, Any]) -> None:
    assert list(ipam_problems(values, {"phpipam"})) == []


@pytest.mark.parametrize(
    ("values", "domains", "variable"),
    [
        ({}, (), "topology_overrides"),
        ({"phpipam_url": "https://ipam.example.org"}, {"phpipam"}, "phpipam_url"),
        ({"phpipam_username": "ems"}, {"phpipam"}, "phpipam_username"),
    ],
)
def test_a_deployed_phpipam_has_a_name_and_is_the_only_one(
    values: dict[str, str], domains: set[str], variable: str
) -> None:
    (found,) = ipam_problems({"phpipam_deploy": True, **values}, domains)
    assert found.variable == variable
