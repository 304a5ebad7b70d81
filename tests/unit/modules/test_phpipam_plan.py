"""The plan for a subnet's addresses: it leads where it says, and a second one is empty."""

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from module_utils.phpipam_plan import (
    FIELDS,
    USED,
    MatchBy,
    Plan,
    Purge,
    Row,
    Update,
    Wanted,
    apply,
    canonical_mac,
    conflicts,
    creation,
    merged,
    patch,
    plan,
    problems,
    row_of,
    told,
    wanted,
)

NETWORK = ipaddress.ip_network("192.168.240.0/24")
TAGS = {"Offline": 1, "Used": 2, "Reserved": 3}
OURS = "cariflex"

texts = st.sampled_from(["", "a", "b"])
ips = st.integers(1, 6).map(lambda n: f"192.168.240.{n}")
customs = st.dictionaries(st.sampled_from(["custom_a", "custom_b"]), st.sampled_from(["x", "y"]))


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    made = []
    for number, ip in enumerate(sorted(draw(st.sets(ips))), 11):
        fields: dict[str, Any] = {name: draw(texts) for name in ("hostname", "description", "mac", "note")}
        owner, tag = draw(st.sampled_from(["", OURS])), draw(st.sampled_from([1, 2, 3]))
        made.append(Row(number, ip, **fields, owner=owner, tag=tag, custom=draw(customs)))
    gateway = draw(st.none() | st.integers(0, max(0, len(made) - 1)))
    return [replace(row, is_gateway=index == gateway) for index, row in enumerate(made)]


@st.composite
def declared(draw: st.DrawFn, *, named: bool) -> list[Wanted]:
    made = []
    names = iter(draw(st.permutations(["a", "b", "c", "d", "e", "f"])))
    gateway = draw(st.integers(0, 8))
    for index, ip in enumerate(draw(st.lists(ips, unique=True))):
        hostname = next(names) if named else draw(st.none() | texts)
        fields = {name: draw(st.none() | texts) for name in ("description", "mac", "note", "owner")}
        tag, ping = draw(st.sampled_from([None, 1, 3])), draw(st.none() | st.booleans())
        custom = draw(st.dictionaries(st.sampled_from(["custom_a", "custom_b"]), texts))
        is_gateway = index == gateway or draw(st.sampled_from([None, False]))
        made.append(Wanted(ip, hostname, **fields, tag=tag, is_gateway=is_gateway, exclude_ping=ping, custom=custom))
    return made


def has(row: Row, one: Wanted) -> bool:
    fields = all(getattr(one, name) in (None, getattr(row, name)) for name in FIELDS)
    return row.ip == one.ip and fields and all(row.custom.get(name, "") == value for name, value in one.custom.items())


@given(st.data(), st.sampled_from(["ip", "hostname"]), st.sampled_from(["none", "managed", "all"]))
def test_a_plan_makes_what_is_declared_and_then_nothing_is_left_to_do(
    data: st.DataObject, match_by: MatchBy, purge: Purge
) -> None:
    before, desired = data.draw(rows()), data.draw(declared(named=match_by == "hostname"))
    chosen: dict[str, Any] = {"match_by": match_by, "purge": purge, "managed_by": OURS}
    assume(not list(conflicts(before, desired, **chosen)))
    changes = plan(before, desired, **chosen)
    after = apply(before, changes)
    for one in desired:
        assert [row for row in after if has(row, one)], one
    assert len({row.ip for row in after}) == len(after)
    again = plan(after, desired, **chosen)
    assert not again.changed
    assert again.unchanged == len(desired)
    # whose it is not, and nobody declared, is left alone
    theirs = {row.ip for row in before if row.owner != OURS} if purge != "all" else set()
    assert theirs <= {row.ip for row in after} or match_by == "hostname"


@given(rows())
def test_what_is_there_needs_no_plan(before: list[Row]) -> None:
    as_they_are = [Wanted(row.ip, **{name: getattr(row, name) for name in FIELDS}, custom=row.custom) for row in before]
    assert plan(before, as_they_are, purge="all") == Plan(unchanged=len(before))


@given(rows(), st.data())
def test_a_patch_holds_what_differs_and_always_the_tag(before: list[Row], data: st.DataObject) -> None:
    assume(before)
    row = before[0]
    after = merged(row, data.draw(declared(named=False).filter(bool))[0])
    body = patch(Update(row, after))
    assert body["tag"] == after.tag
    assert {"ip", "subnetId"}.isdisjoint(body)
    assert all(value is not None and not isinstance(value, bool) for value in body.values())
    changed = {name for name in FIELDS if getattr(row, name) != getattr(after, name)} - {"exclude_ping"}
    assert changed <= body.keys()


def test_a_moved_container_takes_all_it_had_to_its_new_address() -> None:
    row = Row(11, "192.168.240.5", "worker", description="kept", tag=3, custom={"custom_role": "x"})
    changes = plan([row], [Wanted("192.168.240.6", "worker", mac="02:42:ac:1d:00:06")], match_by="hostname")
    assert changes.delete == (row,)
    (made,) = changes.create
    body = creation(made, 7)
    assert (body["ip"], body["description"], body["tag"], body["custom_role"]) == ("192.168.240.6", "kept", 3, "x")


def test_two_containers_may_change_places() -> None:
    before = [Row(11, "192.168.240.5", "a"), Row(12, "192.168.240.6", "b")]
    desired = [Wanted("192.168.240.6", "a"), Wanted("192.168.240.5", "b")]
    assert not list(conflicts(before, desired, match_by="hostname"))
    after = apply(before, plan(before, desired, match_by="hostname"))
    assert {row.hostname: row.ip for row in after} == {"a": "192.168.240.6", "b": "192.168.240.5"}


@pytest.mark.parametrize(
    ("before", "match_by", "said"),
    [
        ([Row(1, "192.168.240.5", "a"), Row(2, "192.168.240.9", "a")], "hostname", "hostname of 192.168.240.5, 192"),
        ([Row(1, "192.168.240.6", "other")], "hostname", "wanted for a and belongs to other"),
        ([Row(1, "192.168.240.6"), Row(2, "192.168.240.6")], "ip", "more than once"),
    ],
)
def test_what_is_not_clear_is_refused(before: list[Row], match_by: MatchBy, said: str) -> None:
    (problem,) = conflicts(before, [Wanted("192.168.240.6", "a")], match_by=match_by)
    assert said in str(problem)


def test_a_row_without_a_name_is_taken_over() -> None:
    before = [Row(1, "192.168.240.6", description="found by a scan")]
    (update,) = plan(before, [Wanted("192.168.240.6", "a")], match_by="hostname").update
    assert (update.after.hostname, update.after.description) == ("a", "found by a scan")


@pytest.mark.parametrize(
    "answer",
    [
        {"id": 12, "ip": "fd00:240::00ab", "tag": 3, "excludePing": 1, "is_gateway": 0, "custom_a": "x", "note": None},
        {
            "id": "12",
            "ip": "fd00:240::ab",
            "tag": "3",
            "excludePing": "1",
            "is_gateway": "0",
            "note": "",
            "custom_a": "x",
        },
        {"id": 12, "ip": "fd00:240:0:0::ab", "tag": 3, "excludePing": 1, "custom_fields": {"custom_a": "x"}},
    ],
)
def test_a_row_is_read_alike_from_every_version_and_app(answer: dict[str, Any]) -> None:
    assert row_of(answer) == Row(12, "fd00:240::ab", tag=3, exclude_ping=True, custom={"custom_a": "x"})


@pytest.mark.parametrize("text", ["0011.22aa.bbcc", "00-11-22-AA-BB-CC", "001122aabbcc", "00:11:22:aa:bb:cc"])
def test_hardware_addresses_are_written_as_phpipam_does(text: str) -> None:
    assert canonical_mac(text) == "00:11:22:aa:bb:cc"
    assert not list(problems([{"ip": "192.168.240.5", "mac": text}], NETWORK, tags=TAGS))


@pytest.mark.parametrize(
    ("entry", "option", "said"),
    [
        ({}, "addresses[0]", "needs an ip or a range"),
        ({"ip": "192.168.240.5", "range": "192.168.240.5-192.168.240.6"}, "addresses[0]", "one of the two"),
        ({"ip": "gateway"}, "addresses[0].ip", "is no address"),
        ({"ip": "10.0.0.1"}, "addresses[0].ip", "outside 192.168.240.0/24"),
        ({"ip": "192.168.240.0"}, "addresses[0].ip", "network's own address"),
        ({"ip": "192.168.240.255"}, "addresses[0].ip", "broadcast"),
        ({"range": "192.168.240.5"}, "addresses[0].range", "is no range"),
        ({"range": "192.168.240.9-192.168.240.5"}, "addresses[0].range", "ends before it begins"),
        ({"ip": "192.168.240.5", "description": "x" * 65}, "addresses[0].description", "65 characters"),
        ({"ip": "192.168.240.5", "hostname": "x" * 256}, "addresses[0].hostname", "256 characters"),
        ({"ip": "192.168.240.5", "owner": "x" * 129}, "addresses[0].owner", "129 characters"),
        ({"ip": "192.168.240.5", "mac": "zz:zz"}, "addresses[0].mac", "hardware address"),
        ({"ip": "192.168.240.5", "tag": "reserved"}, "addresses[0].tag", "did you mean Reserved?"),
    ],
)
def test_what_phpipam_would_refuse_is_refused_before(entry: dict[str, Any], option: str, said: str) -> None:
    found = list(problems([entry], NETWORK, tags=TAGS))
    assert [problem.variable for problem in found] == [option]
    assert said in str(found[0])


def test_one_identity_is_declared_once() -> None:
    twice = [{"ip": "192.168.240.5", "hostname": "a"}, {"range": "192.168.240.4-192.168.240.6", "hostname": "b"}]
    assert "declared by addresses[0] too" in str(next(problems(twice, NETWORK, tags=TAGS)))
    names = [
        {"ip": "192.168.240.5", "hostname": "a"},
        {"ip": "192.168.240.6", "hostname": "a"},
        {"ip": "192.168.240.7"},
    ]
    found = list(problems(names, NETWORK, tags=TAGS, match_by="hostname"))
    assert [problem.variable for problem in found] == ["addresses[1].hostname", "addresses[2].hostname"]
    gateways = [{"ip": "192.168.240.1", "is_gateway": True}, {"ip": "192.168.240.2", "is_gateway": True}]
    assert "gateway already" in str(next(problems(gateways, NETWORK, tags=TAGS)))
    theirs = [{"ip": "192.168.240.5", "owner": "somebody"}]
    assert "managed_by" in str(next(problems(theirs, NETWORK, tags=TAGS, managed_by=OURS)))
    ranged = [{"range": "192.168.240.5-192.168.240.6", "hostname": "a"}]
    assert "match_by: ip" in str(next(problems(ranged, NETWORK, tags=TAGS, match_by="hostname")))


def test_a_range_is_many_addresses_that_are_alike_and_ours() -> None:
    entry = {
        "range": "192.168.240.128-192.168.240.130",
        "tag": "Reserved",
        "custom_fields": {"role": None, "custom_b": 1},
    }
    found = wanted([entry], TAGS, OURS)
    assert [one.ip for one in found] == ["192.168.240.128", "192.168.240.129", "192.168.240.130"]
    assert {(one.tag, one.owner, tuple(one.custom.items())) for one in found} == {
        (3, OURS, (("custom_role", ""), ("custom_b", "1")))
    }


def test_networks_of_two_and_of_ipv6_have_no_reserved_ends() -> None:
    two, six = ipaddress.ip_network("10.0.0.0/31"), ipaddress.ip_network("fd00:240::/64")
    assert not list(problems([{"ip": "10.0.0.0"}], two, tags=TAGS))
    assert not list(problems([{"ip": "fd00:240::"}], six, tags=TAGS))
    assert list(problems([{"ip": "10.0.0.1"}], six, tags=TAGS))


def test_a_new_address_is_used_unless_something_else_is_said() -> None:
    assert creation(Wanted("192.168.240.5", exclude_ping=True, is_gateway=False), 7) == {
        "ip": "192.168.240.5",
        "subnetId": 7,
        "tag": USED,
        "excludePing": 1,
        "is_gateway": 0,
    }
    assert told(Wanted("192.168.240.5", custom={"custom_a": "x"}), {2: "Used"}) == {
        "ip": "192.168.240.5",
        "custom_fields": {"custom_a": "x"},
    }


def test_an_address_that_moves_onto_a_nameless_row_clears_what_is_to_be_empty_there() -> None:
    before = [
        Row(1, "192.168.240.1", "a", custom={"custom_b": "kept"}),
        Row(2, "192.168.240.4", custom={"custom_a": "x"}),
    ]
    desired = [Wanted("192.168.240.4", "a", custom={"custom_a": ""})]
    (after,) = apply(before, plan(before, desired, match_by="hostname"))
    assert (after.hostname, after.custom) == ("a", {"custom_b": "kept"})


def test_to_be_the_gateway_stays_with_the_place_when_a_name_moves() -> None:
    before = [Row(11, "192.168.240.1", hostname="b", is_gateway=True)]
    desired = [Wanted("192.168.240.1", "a", is_gateway=True), Wanted("192.168.240.2", "b")]
    after = apply(before, plan(before, desired, match_by="hostname"))
    assert {(row.ip, row.hostname, row.is_gateway) for row in after} == {
        ("192.168.240.1", "a", True),
        ("192.168.240.2", "b", False),
    }
