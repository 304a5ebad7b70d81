"""What is odd in phpIPAM, each once, and what our modules make of it (tests/support/phpipam.py has it all)."""

import ipaddress
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import http_api
from ansible.module_utils.phpipam_book import Book, Written
from ansible.module_utils.phpipam_client import TIMEOUT, PhpIpamClient, PhpIpamError
from ansible.module_utils.phpipam_plan import Plan, Wanted

from tests.support.phpipam import (
    CODE,
    NEST_CODE,
    OFF_CODE,
    PASSWORD,
    READ_ONLY_CODE,
    USER,
    PhpIpam,
    Refusal,
    Reply,
    serving,
)

from .conftest import RunModule

NETWORK = "192.168.240.0/24"
CHILD = "192.168.240.128/25"
LOGIN = {"app_id": "cariflex", "app_code": None, "username": USER, "password": PASSWORD}
ADDRESSES = [
    {"ip": "192.168.240.1", "hostname": "gateway", "is_gateway": True, "exclude_ping": True},
    {"ip": "192.168.240.10", "hostname": "openadr-vtn", "custom_fields": {"cariflex_role": "vtn"}},
]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def phpipam(request: pytest.FixtureRequest) -> PhpIpam:
    """With a section and a subnet in it, of id 7; 1.8.2 unless said otherwise."""
    made = PhpIpam(getattr(request, "param", "1.8.2"))
    made.sections[3] = {"id": 3, "name": "Cariflex EMS", "permissions": None, "strictMode": "1"}
    made.next_id["sections"] = 4
    made._create_subnet({"subnet": "192.168.240.0", "mask": 24, "sectionId": 3})
    return made


@pytest.fixture
def url(phpipam: PhpIpam, certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(phpipam, context) as address:
        yield address


@pytest.fixture
def run(run_module: RunModule, url: str, certificate: Path) -> Run:
    """Run a module on the subnet; what is given goes before."""

    def run(name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        place = {"section": "Cariflex EMS", "subnet": NETWORK}
        return run_module(
            f"phpipam_{name}",
            {"url": url, "ca_path": str(certificate), "app_id": "cariflexcode", "app_code": CODE, **place, **options},
            check=check,
            diff=True,
        )

    return run


@pytest.fixture
def client(url: str, certificate: Path) -> PhpIpamClient:
    return PhpIpamClient(url, "cariflexcode", app_code=CODE, ca_path=str(certificate))


def writes(phpipam: PhpIpam) -> list[tuple[str, str]]:
    return [(method, path) for method, path in phpipam.requests if method != "GET" and not path.endswith("/user/")]


def refused(result: dict[str, Any], *said: str) -> None:
    assert result["failed"] is True
    for part in said:
        assert part in result["msg"]
    assert result["partial"] == {"created": [], "updated": [], "deleted": []}
    assert CODE not in result["_printed"]
    assert PASSWORD not in result["_printed"]


# --- the frame -------------------------------------------------------------------------------------------------------

TURN_ON = "Fix: turn on the API, and the app with security 'SSL with App code token', and use https or behind_proxy"


@pytest.mark.parametrize(
    ("state", "way", "said"),
    [
        ({"off": True}, {}, "API server disabled"),
        ({}, {"app_id": "cariflexoff", "app_code": OFF_CODE}, "Application disabled"),
        ({}, {"app_id": "cariflexcrypt"}, "Invalid enc_request"),
        ({}, {**LOGIN, "app_id": "cariflexnone"}, "SSL connection is required for API"),
        ({"plain": True}, {}, "SSL connection is required for API"),
        ({"plain": True}, LOGIN, "SSL connection is required for API"),
        ({"plain": True, "allows_unsafe": True}, {}, "SSL connection is required for API"),
        ({"plain": True}, {"behind_proxy": True}, "SSL connection is required for API"),
        ({"plain": True, "trusts_proxy": True}, {}, "SSL connection is required for API"),
    ],
)
def test_what_is_off_is_named_with_the_switch(
    phpipam: PhpIpam, run: Run, state: dict[str, Any], way: dict[str, Any], said: str
) -> None:
    vars(phpipam).update(state)
    result = run("subnet", **way)
    refused(result, said, TURN_ON)
    assert (result["http_status"], result["api_calls"]) == (503, 1)


@pytest.mark.parametrize("way", [{}, LOGIN])
def test_plain_http_is_enough_behind_a_proxy_that_phpipam_trusts(
    phpipam: PhpIpam, run: Run, way: dict[str, Any]
) -> None:
    phpipam.plain = phpipam.trusts_proxy = True
    with serving(phpipam) as url:
        assert run("subnet", url=url, behind_proxy=True, **way)["failed"] is False
    assert phpipam.sessions == 1, "its cookie is for https only, and comes back all the same"


@pytest.mark.parametrize(
    ("way", "status", "said"),
    [
        ({"app_id": "nosuch"}, 400, ("Invalid application id", "Fix: check app_id")),
        ({"app_code": "x" * 32}, 401, ("Unauthorized", "Fix: check app_code")),
        ({"app_code": NEST_CODE}, 403, ("Invalid token", "it belongs to another app")),
        (
            {**LOGIN, "password": "no-password"},
            500,
            ("Invalid username or password", "Fix: check username and password"),
        ),
        ({**LOGIN, "username": "nobody"}, 500, ("Invalid username or password", "Fix: check username and password")),
    ],
)
def test_each_wrong_way_in_says_which_option_is_wrong(
    phpipam: PhpIpam, run: Run, way: dict[str, Any], status: int, said: tuple[str, ...]
) -> None:
    result = run("subnet", **way)
    refused(result, *said)
    assert (result["http_status"], result["api_code"]) == (status, status)


@pytest.mark.parametrize("code", ["s3cret\n", "s3cret blank", "s3cr€t"])
def test_a_code_that_no_header_can_hold_is_refused_before_any_call_and_not_told(
    phpipam: PhpIpam, run: Run, code: str
) -> None:
    result = run("subnet", app_code=code)
    refused(result, "app_code has a blank, a line end or another character", "copy it once more")
    assert (result["api_calls"], phpipam.requests) == (0, [])
    assert "s3cr" not in result["msg"]


def test_a_wrong_base_url_leads_to_the_login_page_and_is_said(run: Run, url: str, phpipam: PhpIpam) -> None:
    result = run("subnet", url=f"{url}/ipam")
    refused(result, f"{url}/ipam/api/cariflexcode/sections/", "302", "let url be the server itself", "/login/")
    assert phpipam.requests == [("GET", "/ipam/api/cariflexcode/sections/")], "not followed"


def test_bad_logins_are_counted_once_a_run_and_more_than_ten_block_every_app(phpipam: PhpIpam, run: Run) -> None:
    for count in range(1, 12):
        refused(run("subnet", **{**LOGIN, "password": "bad"}), "Invalid username or password")
        assert phpipam.bad_logins == count
    for way in (LOGIN, {}):
        result = run("subnet", **way)
        refused(result, "blocked for 5 minutes", "after 10 bad logins phpIPAM refuses everything from this address")
        assert result["api_calls"] == 1
    phpipam.bad_logins = 0
    for _ in range(12):  # a wrong code counts for nothing
        run("subnet", app_code="x" * 32)
    assert run("subnet")["failed"] is False


@pytest.mark.parametrize(
    "way",
    [
        {"app_id": "cariflexro", "app_code": READ_ONLY_CODE},
        {**LOGIN, "app_id": "cariflexreader"},
    ],
)
def test_an_app_that_only_reads_is_no_reason_to_log_in_again_and_again(
    phpipam: PhpIpam, run: Run, way: dict[str, Any]
) -> None:
    assert run("subnet", check=True, addresses=ADDRESSES, **way)["changed"] is True
    phpipam.requests.clear()
    result = run("subnet", addresses=ADDRESSES, **way)
    refused(result, "invalid permissions", "Fix: give the API app the permission Read / Write")
    logins = [path for _, path in phpipam.requests if path.endswith("/user/")]
    assert (len(logins), len(writes(phpipam))) == ((2, 2) if "username" in way else (0, 1))
    assert not phpipam.addresses


def test_runs_share_the_token_of_their_user_and_nobody_logs_out(
    phpipam: PhpIpam, run: Run, url: str, certificate: Path
) -> None:
    way = {"username": USER, "password": PASSWORD, "ca_path": str(certificate)}
    ours, theirs = (PhpIpamClient(url, "cariflex", **way) for _ in range(2))
    assert Book(ours).rows(7) == Book(theirs).rows(7) == []
    assert run("subnet", addresses=ADDRESSES, **LOGIN)["failed"] is False
    for client in (ours, theirs):
        assert len(Book(client).rows(7)) == 2
    assert [path for _, path in phpipam.requests].count("/api/cariflex/user/") == 3
    assert ("DELETE", "/api/cariflex/user/") not in phpipam.requests
    assert list(phpipam.tokens) == [USER]
    assert phpipam.next_id["tokens"] == 1, "one for all"


def test_whoever_can_log_in_has_the_rights_of_the_app(phpipam: PhpIpam, run: Run) -> None:
    way = {**LOGIN, "username": "viewer", "password": "viewer-Secret1"}
    assert run("subnet", addresses=ADDRESSES, **way)["changed"] is True


def test_a_log_out_by_somebody_else_in_the_midst_costs_one_login(phpipam: PhpIpam, run: Run) -> None:
    def log_out(method: str, _path: str) -> None:
        if method == "POST" and len(writes(phpipam)) == 2:
            phpipam.before = lambda _method, _path: None
            phpipam.tokens.clear()

    phpipam.before = log_out
    result = run("subnet", addresses=ADDRESSES, **LOGIN)
    assert (result["failed"], len(phpipam.addresses)) == (False, 2)
    assert [path for _, path in phpipam.requests].count("/api/cariflex/user/") == 2
    assert phpipam.next_id["tokens"] == 2, "the second token is another one"


def test_a_login_without_a_token_is_none(phpipam: PhpIpam, run: Run) -> None:
    phpipam.before = lambda _method, _path: Reply(200, {"code": 200, "success": True, "data": {}})
    refused(run("subnet", **LOGIN), "/user/ gave no token. Fix: let url be phpIPAM itself")


def test_a_token_that_is_refused_again_ends_the_run(phpipam: PhpIpam, run: Run) -> None:
    def forget(_method: str, path: str) -> None:
        if not path.endswith("/user/"):
            phpipam.tokens.clear()

    phpipam.before = forget
    result = run("subnet", **LOGIN)
    refused(result, "Unauthorized")
    assert result["api_calls"] == 2


def test_a_whole_run_leaves_one_session(phpipam: PhpIpam, run: Run) -> None:
    result = run("subnet", addresses=[{"range": "192.168.240.20-192.168.240.29"}], **LOGIN)
    assert (result["api_calls"], phpipam.sessions) == (15, 1)


@pytest.mark.parametrize("phpipam", ["1.8.2", "1.7.4"], indirect=True)
def test_numbers_that_are_texts_are_the_same_numbers(phpipam: PhpIpam, run: Run) -> None:
    run("subnet", addresses=[*ADDRESSES, {"ip": "192.168.240.200", "tag": "Reserved"}])
    phpipam.stringify = True
    again = run("subnet", addresses=[*ADDRESSES, {"ip": "192.168.240.200", "tag": "Reserved"}])
    assert (again["changed"], again["unchanged"]) == (False, 3)
    assert run("address", ip="192.168.240.1", is_gateway=True)["changed"] is False
    assert run("address", ip="first_free", hostname="new")["ip"] == "192.168.240.2"
    told = run("info")
    assert told["addresses"][0] == {
        "ip": "192.168.240.1",
        "hostname": "gateway",
        "tag": "Used",
        "is_gateway": True,
        "exclude_ping": True,
    }
    assert told["subnets"] == [{"subnet": NETWORK, "description": "", "id": 7}]


def test_texts_in_another_language_change_nothing(phpipam: PhpIpam, run: Run) -> None:
    phpipam.translate = lambda text: f"«{text[::-1]}»"
    made = {"subnet": "10.8.0.0/29", "addresses": [{"ip": "10.8.0.1"}]}
    assert run("subnet", **made)["changed"] is True, "no address yet, which is an error there"
    assert run("subnet", **made)["changed"] is False
    faster(phpipam, "10.8.0.2", subnet_id=8)
    assert run("address", subnet="10.8.0.0/29", ip="10.8.0.2", hostname="ours")["failed"] is False
    phpipam.subnets[8]["isFull"] = 1
    refused(run("address", subnet="10.8.0.0/29", ip="first_free", hostname="x"), "No address of the subnet is free")
    phpipam.bad_logins = 10
    refused(run("subnet", **{**LOGIN, "password": "no-password"}), "check username and password")
    phpipam.bad_logins = 0
    read_only = {"app_id": "cariflexro", "app_code": READ_ONLY_CODE}
    refused(run("subnet", description="new", **read_only), "give the API app the permission Read / Write")


def test_a_redirect_is_an_answer_like_others(client: PhpIpamClient, phpipam: PhpIpam) -> None:
    assert client.change("PATCH", "/devices/999/", {"description": "x"})["success"] is True
    assert phpipam.requests == [("PATCH", "/api/cariflexcode/devices/999/")]


def test_an_empty_answer_of_a_failed_script_is_an_error(client: PhpIpamClient) -> None:
    with pytest.raises(PhpIpamError, match="answered 500"):
        client.change("DELETE", "/addresses/192.168.240.99/7/")


# --- what is asked and sent ------------------------------------------------------------------------------------------

ASKED = {
    "GET": r"/(sections|sections/\d+/subnets|subnets/\d+/(addresses|first_free)|addresses/tags|\w+/custom_fields)/",
    "POST": r"/(sections|subnets|addresses|addresses/first_free/\d+)/",
    "PATCH": r"/(subnets|addresses)/\d+/",
    "DELETE": r"/(subnets|addresses)/\d+/",
}


@pytest.mark.parametrize("phpipam", ["1.8.2", "1.7.4"], indirect=True)
def test_nothing_is_asked_or_sent_that_phpipam_answers_oddly(phpipam: PhpIpam, run: Run) -> None:
    """Searches tell decimal addresses or other sections' rows, a PUT loses what is sent, resizing moves the subnet."""
    for addresses in (
        [*ADDRESSES, {"ip": "192.168.240.9", "hostname": "worker"}],
        [
            {"ip": "192.168.240.1", "is_gateway": False, "hostname": "gateway"},
            {"ip": "192.168.240.8", "hostname": "worker"},
        ],
    ):
        for _ in range(2):
            result = run("subnet", addresses=addresses, match_by="hostname", purge="all", description="x")
            assert result["failed"] is False
    run("address", ip="first_free", hostname="free")
    run("address", ip="192.168.240.8", tag="Reserved", custom_fields={"cariflex_role": "x"})
    run("info")
    run("subnet", section="New one", create_section=True, custom_fields={"cariflex_env": "test"})
    run("subnet", state="absent", force_delete=True)
    assert {method for method, _ in phpipam.requests} == set(ASKED)
    for method, path in phpipam.requests:
        assert re.fullmatch("/api/cariflexcode" + ASKED[method], path), (method, path)
    for (method, path), body in zip(phpipam.requests, phpipam.bodies, strict=True):
        if method != "GET" and body is not None:
            assert not any(isinstance(value, bool) for value in body.values()), "false is an error there"
        if method == "PATCH" and "/addresses/" in path:
            assert "tag" in body
            assert not {"ip", "subnetId"} & set(body), "an error, though they be the same"
        if "/addresses/" in path and method in ("POST", "PATCH"):
            assert isinstance(body["tag"], int)


def test_odd_listings_are_there_to_be_avoided(phpipam: PhpIpam, client: PhpIpamClient) -> None:
    for ip in ("192.168.240.5", "192.168.240.6"):
        phpipam._create_address({"ip": ip, "subnetId": 7, "hostname": "twice", "tag": 3})
    assert [row["ip"] for row in client.rows("/addresses/search_hostname/twice/")] == ["192.168.240.5", "3232296966"]
    assert {row["ip"] for row in client.rows("/addresses/tags/3/addresses/")} == {"3232296965", "3232296966"}
    found = client.ask("/search/192.168.240.5/")
    assert [found["subnets"]["data"][0]["subnet"], found["addresses"]["data"][0]["ip"]] == ["3232296960", "3232296965"]
    assert client.ask("/addresses/192.168.240.5/7/") is None
    assert {row.ip for row in Book(client).rows(7)} == {"192.168.240.5", "192.168.240.6"}
    phpipam.version = "1.7.4"
    assert (raw := client.ask("/addresses/192.168.240.5/7/"))["state"] == 3
    assert (raw["ip_addr"], "tag" in raw) == ("3232296965", False)


@pytest.mark.parametrize("mac", ["0011.22aa.bbcc", "00-11-22-AA-BB-CC", "001122aabbcc", "00:11:22:aa:bb:cc"])
def test_every_notation_of_a_mac_is_the_same(phpipam: PhpIpam, run: Run, mac: str) -> None:
    assert run("address", ip="192.168.240.5", mac=mac)["changed"] is True
    assert [row["mac"] for row in phpipam.addresses.values()] == ["00:11:22:aa:bb:cc"]
    assert run("address", ip="192.168.240.5", mac=mac)["changed"] is False


def test_every_notation_of_an_ipv6_address_is_the_same(phpipam: PhpIpam, run: Run) -> None:
    long, short = "fd00:0240:0:0::00AB", "fd00:240::ab"
    assert run("subnet", subnet="fd00:0240::/64", addresses=[{"ip": long, "hostname": "vtn"}])["created"] == [short]
    assert run("subnet", subnet="fd00:240:0::/64", addresses=[{"ip": short, "hostname": "vtn"}])["changed"] is False
    assert run("address", subnet="fd00:240::/64", ip="first_free", hostname="new")["ip"] == "fd00:240::1"
    assert run("address", subnet="fd00:240::/64", ip=long, state="absent")["changed"] is True
    refused(run("address", subnet="fd00:240::/64", ip="192.168.240.5"), "is outside fd00:240::/64")


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"description": "a <b> c"}, "description"),
        ({"custom_fields": {"cariflex_env": "<x"}}, "custom_fields.cariflex_env"),
        ({"managed_by": "<us>"}, "managed_by"),
        ({"managed_by": "x" * 129}, "managed_by"),
        ({"addresses": [{"ip": "192.168.240.5", "description": "É <b>x</b>"}]}, "addresses[0].description"),
        ({"addresses": [{"ip": "192.168.240.5", "note": "a <"}]}, "addresses[0].note"),
        (
            {"addresses": [{"ip": "192.168.240.5", "custom_fields": {"cariflex_role": "<i>"}}]},
            "addresses[0].custom_fields.cariflex_role",
        ),
        ({"section": "<New>", "create_section": True}, "section"),
        ({"section": "Ab", "create_section": True}, "section"),
        ({"section": "x" * 129, "create_section": True}, "section: has 129 characters"),
        ({"custom_fields": {"cariflex_env": "x" * 65}}, "custom_fields.cariflex_env: has 65 characters"),
        (
            {"addresses": [{"ip": "192.168.240.5", "custom_fields": {"cariflex_role": "x" * 65}}]},
            "custom_fields.cariflex_role: has 65 characters",
        ),
        ({"section_permissions": {"3": "4"}}, "section_permissions.3"),
        ({"section_permissions": {"Guests": "1"}}, "section_permissions.Guests"),
    ],
)
def test_what_phpipam_would_keep_otherwise_is_refused_before(
    phpipam: PhpIpam, run: Run, options: dict[str, Any], path: str
) -> None:
    refused(run("subnet", check=True, **options), path, "Fix:")
    assert not writes(phpipam)


@pytest.mark.parametrize("ip", ["192.168.240.5", "192.168.240.6", "first_free"])
def test_a_custom_field_takes_what_its_type_says(phpipam: PhpIpam, run: Run, ip: str) -> None:
    phpipam._create_address({"ip": "192.168.240.6", "subnetId": 7, "custom_cariflex_role": "vtn"})
    place = {"ip": ip, "hostname": "one"}
    refused(run("address", custom_fields={"cariflex_role": "x" * 65}, **place), "has 65 characters. Fix: write 64 at")
    refused(run("address", custom_fields={"cariflex_rol": "x"}, **place), "is no custom field of addresses", "did you")
    assert not writes(phpipam)
    assert run("address", custom_fields={"cariflex_role": "x" * 64}, **place)["changed"] is True
    assert run("address", custom_fields={"cariflex_role": "x" * 64}, **place)["changed"] is False
    assert run("address", custom_fields={"cariflex_role": ""}, **place)["changed"] is True


@pytest.mark.parametrize("kind", ["text", "date", "int(11)", None])
def test_a_custom_field_of_another_type_is_left_to_phpipam(phpipam: PhpIpam, run: Run, kind: str | None) -> None:
    fields = {"custom_cariflex_role": {"name": "custom_cariflex_role", "type": kind} if kind else None}
    phpipam.before = lambda _method, path: (
        Reply(200, {"code": 200, "success": True, "data": fields}) if path.endswith("/custom_fields/") else None
    )
    assert run("address", ip="192.168.240.5", custom_fields={"cariflex_role": "x" * 64})["changed"] is True


def test_a_less_than_sign_that_is_no_tag_is_kept(phpipam: PhpIpam, run: Run) -> None:
    text = "É 1 < 2 & 'q' > 0"
    assert run("address", ip="192.168.240.5", description=text)["changed"] is True
    assert [row["description"] for row in phpipam.addresses.values()] == [text]
    assert run("address", ip="192.168.240.5", description=text)["changed"] is False


# --- sections --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["12345", "a/b", "Café & co"])
def test_a_section_is_found_by_its_exact_name_whatever_it_is(phpipam: PhpIpam, run: Run, name: str) -> None:
    assert run("subnet", section=name, create_section=True)["changed"] is True
    assert run("subnet", section=name)["changed"] is False
    assert len(phpipam.sections) == 2


def test_a_section_that_differs_in_case_is_not_made_a_second_time(phpipam: PhpIpam, run: Run) -> None:
    refused(run("subnet", section="cariflex ems", create_section=True), "differ in case only", "Cariflex EMS")
    refused(run("address", section="cariflex ems", ip="192.168.240.5"), "make it with phpipam_subnet")
    assert not writes(phpipam)


def test_rights_go_as_a_text_and_subnets_inherit_them(phpipam: PhpIpam, run: Run) -> None:
    rights = {"3": 1, "2": 2}
    run("subnet", section="New one", create_section=True, section_permissions=rights)
    (body,) = [body for body in phpipam.bodies if body and "name" in body]
    assert json.loads(body["permissions"]) == {"3": "1", "2": "2"}
    made = max(phpipam.subnets)
    assert phpipam.subnets[made]["permissions"] == body["permissions"]


# --- subnets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("subnet", ["192.168.240.0/23", "192.168.240.0/25", CHILD])
def test_another_mask_is_refused_and_nothing_is_resized(phpipam: PhpIpam, run: Run, subnet: str, check: bool) -> None:
    phpipam.subnets[7]["description"] = "lan"
    refused(
        run("subnet", subnet=subnet, check=check), f"subnet = {subnet}: overlaps {NETWORK} (lan)", "a mask is never"
    )
    assert not writes(phpipam)


def test_a_section_that_is_not_strict_lets_subnets_overlap(phpipam: PhpIpam, run: Run) -> None:
    phpipam.sections[3]["strictMode"] = "0"
    assert run("subnet", subnet="192.168.240.0/23")["changed"] is True
    assert run("subnet", subnet="192.168.240.0/23")["changed"] is False


@pytest.mark.parametrize("place", [{"vrfId": 1}, {"isFolder": 1}, {"subnet": "", "mask": ""}])
def test_another_vrf_and_a_folder_are_in_nobodys_way(phpipam: PhpIpam, run: Run, place: dict[str, Any]) -> None:
    phpipam.subnets[7].update(place)
    assert run("subnet", subnet="192.168.240.0/23", check=True)["changed"] is True


def test_the_same_subnet_twice_in_a_section_is_ambiguous(phpipam: PhpIpam, run: Run) -> None:
    phpipam.subnets[8] = {**phpipam.subnets[7], "id": 8, "vrfId": 1}
    for name in ("subnet", "info"):
        assert "several times (7, 8). Fix: delete all but one" in run(name)["msg"]


def nested(phpipam: PhpIpam) -> None:
    phpipam._create_subnet({"subnet": "192.168.240.128", "mask": 25, "sectionId": 3, "masterSubnetId": 7})
    phpipam._create_subnet({"subnet": "192.168.240.128", "mask": 26, "sectionId": 3, "masterSubnetId": 8})
    for ip, subnet_id in (("192.168.240.5", 7), ("192.168.240.200", 8), ("192.168.240.130", 9)):
        phpipam._create_address({"ip": ip, "subnetId": subnet_id})


def test_all_that_a_deletion_takes_along_is_counted_and_told(phpipam: PhpIpam, run: Run) -> None:
    nested(phpipam)
    refused(run("subnet", state="absent"), "has 3 addresses and 2 subnets", "Nothing was deleted", "force_delete")
    assert not writes(phpipam)
    preview = run("subnet", state="absent", force_delete=True, check=True)
    gone = run("subnet", state="absent", force_delete=True)
    assert preview["deleted"] == gone["deleted"] == ["192.168.240.5", "192.168.240.200", "192.168.240.130"]
    assert {NETWORK, CHILD, "192.168.240.128/26"} <= set(gone["diff"]["before"])
    assert (phpipam.subnets, phpipam.addresses) == ({}, {})


def test_an_address_goes_into_the_innermost_subnet(phpipam: PhpIpam, run: Run) -> None:
    nested(phpipam)
    said = "is in {0}, a subnet within this one. Fix: declare it in {0}".format
    refused(run("address", ip="192.168.240.210"), said(CHILD))
    reaching = run("subnet", addresses=[{"range": "192.168.240.126-192.168.240.129"}])
    refused(reaching, "2 problems", "192.168.240.129", said("192.168.240.128/26"))
    assert not writes(phpipam)
    assert run("address", ip="192.168.240.6")["changed"] is True
    assert run("address", subnet=CHILD, ip="192.168.240.210")["changed"] is True
    phpipam._create_address({"ip": "192.168.240.220", "subnetId": 7})
    assert run("address", ip="192.168.240.220", hostname="there already")["changed"] is True
    assert run("address", ip="192.168.240.220", state="absent")["changed"] is True


@pytest.mark.parametrize("check", [True, False])
def test_an_address_that_a_subnet_around_has_is_not_made_a_second_time(phpipam: PhpIpam, run: Run, check: bool) -> None:
    nested(phpipam)
    for ip, subnet_id in (("192.168.240.129", 7), ("192.168.240.131", 8)):
        phpipam._create_address({"ip": ip, "subnetId": subnet_id})
    inner = {"subnet": "192.168.240.128/26", "check": check}
    said = "192.168.240.129: is in 192.168.240.0/24 already, a subnet around this one. Fix: delete that row"
    refused(run("address", ip="192.168.240.129", **inner), said)
    refused(run("address", ip="first_free", hostname="new", **inner), said)
    several = run("subnet", addresses=[{"range": "192.168.240.129-192.168.240.132"}], **inner)
    refused(several, "2 problems", said, "192.168.240.131: is in 192.168.240.128/25 already")
    assert not writes(phpipam)
    assert run("address", ip="192.168.240.130", hostname="of its own", **inner)["changed"] is True


def test_a_subnet_with_others_within_it_gives_no_free_address(phpipam: PhpIpam, run: Run) -> None:
    nested(phpipam)
    said = f"has others within it ({CHILD}, 192.168.240.128/26). Fix: let subnet be one of them."
    refused(run("address", ip="first_free", hostname="new"), said)
    place = {"subnet": "192.168.240.128/26", "hostname": "new"}
    assert run("address", ip="first_free", **place)["ip"] == "192.168.240.129"


@pytest.mark.parametrize(
    ("mask", "addresses"), [(32, ["10.9.0.0"]), (31, ["10.9.0.0", "10.9.0.1"]), (30, ["10.9.0.1", "10.9.0.2"])]
)
def test_the_smallest_subnets_are_used_up_to_the_last_address(
    phpipam: PhpIpam, run: Run, mask: int, addresses: list[str]
) -> None:
    subnet = f"10.9.0.0/{mask}"
    run("subnet", subnet=subnet)
    for ip in addresses:
        assert run("address", subnet=subnet, ip="first_free", hostname=ip)["ip"] == ip
    assert run("subnet", subnet=subnet, addresses=[{"ip": ip} for ip in addresses])["changed"] is False
    refused(run("address", subnet=subnet, ip="first_free", hostname="new"), "No address of the subnet is free")


@pytest.mark.parametrize("check", [True, False])
def test_no_free_address_is_said_whatever_the_reason(phpipam: PhpIpam, run: Run, check: bool) -> None:
    full = {"subnet": "10.9.0.0/30", "ip": "first_free", "hostname": "new"}
    run("subnet", subnet="10.9.0.0/30", addresses=[{"ip": "10.9.0.1"}])
    phpipam.subnets[8]["isFull"] = 1
    refused(run("address", check=check, **full), "No address of the subnet is free")
    phpipam.subnets[8]["isFull"] = 0

    def last_one(method: str, _path: str) -> None:
        if method == "POST":
            phpipam.before = lambda _method, _path: None
            faster(phpipam, "10.9.0.2", subnet_id=8)

    phpipam.before = last_one
    if check:
        assert run("address", check=True, **full)["ip"] == "10.9.0.2"
    else:
        refused(run("address", **full), "No address of the subnet is free")


def test_a_thousand_addresses_cost_no_more_calls_than_one(phpipam: PhpIpam, run: Run) -> None:
    subnet_id = 1007
    phpipam.next_id["subnets"] = subnet_id
    phpipam._create_subnet({"subnet": "10.8.0.0", "mask": 22, "sectionId": 3})
    phpipam._create_address({"ip": "10.8.0.1", "subnetId": subnet_id, "tag": 3})
    (row,) = phpipam.addresses.values()
    network = ipaddress.ip_network("10.8.0.0/22")
    phpipam.addresses = {id_: {**row, "id": id_, "ip": str(ip)} for id_, ip in enumerate(network.hosts(), 1)}
    declared: dict[str, Any] = {
        "subnet": "10.8.0.0/22",
        "purge": "all",
        "addresses": [{"range": "10.8.0.1-10.8.3.254"}],
    }
    result = run("subnet", **declared)
    assert (result["changed"], result["unchanged"], result["subnet_id"]) == (False, 1022, subnet_id)
    assert result["api_calls"] == 4
    phpipam.addresses[1000]["description"] = "somebody's"
    declared["addresses"][0]["description"] = ""
    assert run("subnet", **declared)["updated"] == ["10.8.3.232"]
    refused(run("address", subnet="10.8.0.0/22", ip="first_free", hostname="new"), "No address of the subnet is free")


def test_a_vlan_stays_attached(phpipam: PhpIpam, run: Run, client: PhpIpamClient) -> None:
    phpipam.vlans[3] = {"vlanId": 3, "name": "ems", "number": 240}
    client.change("PATCH", "/subnets/7/", {"vlanId": "3"})
    assert run("subnet", description="new", custom_fields={"cariflex_env": "test"})["changed"] is True
    assert phpipam.subnets[7]["vlanId"] == "3"
    assert not any("vlanId" in body for body in phpipam.bodies[1:] if body)
    with pytest.raises(PhpIpamError, match="Vlan does not exist"):
        client.change("PATCH", "/subnets/7/", {"vlanId": 0})
    client.change("PATCH", "/subnets/7/", {"vlanId": None})
    assert phpipam.subnets[7]["vlanId"] is None


def test_a_subnet_deleted_meanwhile_is_said_and_made_anew_by_the_next_run(phpipam: PhpIpam, run: Run) -> None:
    def deleted(method: str, _path: str) -> None:
        if method == "POST" and 7 in phpipam.subnets:
            phpipam._drop_subnet(7)

    phpipam.before = deleted
    result = run("subnet", addresses=ADDRESSES)
    refused(result, "POST", "Invalid subnet Id", "Fix: run this again: somebody deleted meanwhile")
    assert result["api_code"] == 404
    assert run("subnet", addresses=ADDRESSES)["created"] == ["192.168.240.1", "192.168.240.10"]


def test_nested_custom_fields_of_a_subnet_are_the_same_fields(phpipam: PhpIpam, run: Run) -> None:
    nest = {"app_id": "cariflexnest", "app_code": NEST_CODE}
    for value in ("prod", ""):
        fields = {"custom_fields": {"cariflex_env": value}}
        assert run("subnet", **fields, **nest)["changed"] is True
        assert run("subnet", **fields, **nest)["changed"] is False
        assert run("subnet", **fields)["changed"] is False


# --- addresses -------------------------------------------------------------------------------------------------------


def test_of_tags_with_one_name_the_id_says_which(phpipam: PhpIpam, run: Run, client: PhpIpamClient) -> None:
    for _ in range(2):
        client.change("POST", "/tools/tags/", {"type": "Docker"})
    refused(run("address", ip="192.168.240.5", tag="Docker"), 'tag = "Docker"', "is no tag", "did you mean Docker/")
    assert run("address", ip="192.168.240.5", tag="Docker/6")["changed"] is True
    assert [row["tag"] for row in phpipam.addresses.values()] == [6]
    assert run("info")["addresses"] == [{"ip": "192.168.240.5", "tag": "Docker/6"}]
    assert run("address", ip="192.168.240.5", tag="Docker/6")["changed"] is False


def test_the_flag_of_the_gateway_is_taken_from_the_former_one_and_both_runs_know(phpipam: PhpIpam, run: Run) -> None:
    run("address", ip="192.168.240.1", is_gateway=True)
    assert run("address", ip="192.168.240.254", is_gateway=True)["changed"] is True
    assert [row["ip"] for row in phpipam.addresses.values() if row["is_gateway"]] == ["192.168.240.254"]
    assert run("address", ip="192.168.240.254", is_gateway=True)["changed"] is False
    assert run("address", ip="192.168.240.1", is_gateway=True)["diff"] == {
        "before": {"192.168.240.1": {"is_gateway": None}},
        "after": {"192.168.240.1": {"is_gateway": True}},
    }


# --- others at the same time, and answers that do not arrive ---------------------------------------------------------


def faster(phpipam: PhpIpam, ip: str, subnet_id: int = 7) -> None:
    """Somebody else makes an address before us."""
    phpipam._create_address({"ip": ip, "subnetId": subnet_id, "hostname": "scanned"})


@pytest.mark.parametrize("racing", [True, False], ids=["without a lock", "with a lock"])
def test_a_row_that_somebody_made_just_before_is_made_right(phpipam: PhpIpam, run: Run, racing: bool) -> None:
    def before_us(method: str, _path: str) -> None:
        if method == "POST" and not phpipam.addresses:
            faster(phpipam, "192.168.240.10")

    phpipam.before, phpipam.racing = before_us, racing
    assert run("subnet", addresses=ADDRESSES)["failed"] is False
    assert {row["ip"]: row["hostname"] for row in phpipam.addresses.values()} == {
        "192.168.240.10": "openadr-vtn",
        "192.168.240.1": "gateway",
    }
    assert run("subnet", addresses=ADDRESSES)["changed"] is False


def test_a_race_for_the_first_free_address_is_lost_without_a_row(phpipam: PhpIpam, run: Run) -> None:
    def lost(method: str, _path: str) -> None:
        if method == "POST":
            phpipam.before = lambda _method, _path: None
            raise Refusal(500, "Error: SQLSTATE[23000]: 1062 Duplicate entry '3232297060-7' for key 'sid_ip_unique'")

    phpipam.before = lost
    refused(run("address", ip="first_free", hostname="new"), "1062", "Fix: run this again if somebody else was writing")
    assert run("address", ip="first_free", hostname="new")["ip"] == "192.168.240.1"


def test_a_lock_that_somebody_holds_is_said_and_stops_only_writing(phpipam: PhpIpam, run: Run) -> None:
    run("subnet", addresses=ADDRESSES[:1])
    phpipam.lock_wait = 0.01
    assert run("subnet", addresses=ADDRESSES[:1])["changed"] is False
    assert run("subnet", addresses=ADDRESSES, check=True)["changed"] is True
    result = run("subnet", addresses=ADDRESSES)
    refused(result, "answered 200 (Cannot obtain lock", "Fix: run this again if somebody else was writing")
    assert (result["http_status"], result["api_code"]) == (200, 500)
    refused(run("subnet", section="New one", create_section=True), "/sections/ answered 200 (Cannot obtain lock")
    refused(run("subnet", subnet="10.8.0.0/24"), "/subnets/ answered 200 (Cannot obtain lock")
    phpipam.lock_wait = None
    assert run("subnet", addresses=ADDRESSES)["created"] == ["192.168.240.10"]


def test_a_lock_held_for_longer_than_a_call_may_take_leaves_nothing_half_done(
    phpipam: PhpIpam, client: PhpIpamClient, url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TIMEOUT > 30, "phpIPAM's own wait"
    impatient = PhpIpamClient(url, "cariflexcode", app_code=CODE, timeout=0.1, ca_path=str(certificate))
    plan, written = Plan(create=(Wanted("192.168.240.5", hostname="ours"),)), Written()
    phpipam.lock_wait = 0.4
    monkeypatch.setattr(http_api, "TRIES", 2)
    with pytest.raises(PhpIpamError, match=r"no answer: .*timed out"):
        Book(impatient).write(7, plan, written)
    assert written.as_dict() == {"created": [], "updated": [], "deleted": []}
    phpipam.lock_wait, phpipam.lost = None, 1  # the first try is done after the client has gone
    Book(client).write(7, plan, written)
    assert [row["hostname"] for row in phpipam.addresses.values()] == ["ours"]


LOST: dict[str, tuple[dict[str, Any], int]] = {
    "section": ({"section": "New one", "create_section": True, "description": "x"}, 1),
    "section and subnet": ({"section": "New one", "create_section": True, "description": "x"}, 2),
    "subnet": ({"subnet": "10.8.0.0/24"}, 1),
    "subnet with a field": ({"subnet": "10.8.0.0/24", "custom_fields": {"cariflex_env": "test"}}, 1),
    "field of the subnet": ({"description": "x"}, 1),
    "address": ({"addresses": [{"ip": "192.168.240.5"}]}, 1),
    "addresses": ({"addresses": ADDRESSES}, 2),
    "field of an address": ({"addresses": [{"ip": "192.168.240.9", "note": "x"}]}, 1),
    "purge": ({"purge": "all"}, 1),
    "deletion": ({"state": "absent", "force_delete": True}, 1),
}


@pytest.mark.parametrize("racing", [False, True], ids=["", "without a lock"])
@pytest.mark.parametrize("change", LOST)
def test_a_change_whose_answer_is_lost_is_seen_to_be_done(
    phpipam: PhpIpam, run: Run, change: str, racing: bool
) -> None:
    phpipam._create_address({"ip": "192.168.240.9", "subnetId": 7})
    options, phpipam.lost = LOST[change]
    phpipam.racing = racing
    result = run("subnet", **options)
    assert (result["failed"], result["changed"], phpipam.lost) == (False, True, 0)
    phpipam.requests.clear()
    assert run("subnet", **options)["changed"] is False
    assert not writes(phpipam)
    names = [row["name"] for row in phpipam.sections.values()]
    places = [(row["subnet"], row["sectionId"]) for row in phpipam.subnets.values()]
    assert (len(set(names)), len(set(places))) == (len(names), len(places)), "nothing is there twice"


def test_the_first_free_address_whose_answer_is_lost_is_found_by_the_next_run(phpipam: PhpIpam, run: Run) -> None:
    phpipam.lost = 1
    result = run("address", ip="first_free", hostname="new")
    assert "no answer" in result["msg"]
    again = run("address", ip="first_free", hostname="new")
    assert (again["changed"], again["ip"], len(phpipam.addresses)) == (False, "192.168.240.1", 1)
