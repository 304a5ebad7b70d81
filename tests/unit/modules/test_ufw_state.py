"""UFW is told what it needs to be told and nothing else, and never shuts out what is declared on the way."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils.ufw_state import State, normalized, plan, read_policies, read_rules
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.modules.conftest import RunModule

OURS = "Cariflex EMS"
POLICIES = {"incoming": "deny", "outgoing": "allow", "routed": "deny"}
SHOWN = """Added user rules (see 'ufw status' for running firewall):
ufw allow 80/tcp comment 'Cariflex EMS'
ufw route allow from 10.0.0.0/8 to 192.168.240.11 port 8765 proto tcp comment 'Cariflex EMS'
ufw allow 25/tcp
ufw allow from 203.0.113.9 comment 'the operator'
"""


def test_only_our_own_rules_are_read() -> None:
    expected = ("allow 80/tcp", "route allow from 10.0.0.0/8 to 192.168.240.11 port 8765 proto tcp")
    assert read_rules(SHOWN, OURS) == expected


def test_policies_are_read_as_ufw_calls_them() -> None:
    text = 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\nDEFAULT_FORWARD_POLICY="REJECT"\n'
    assert read_policies(text) == {"incoming": "deny", "outgoing": "allow", "routed": "reject"}


def test_a_new_host_is_turned_on_when_all_that_is_allowed_is_there() -> None:
    commands = plan(State(), State(("allow 22/tcp",), POLICIES, True), OURS)
    assert commands == [
        ["allow", "22/tcp", "comment", OURS],
        ["default", "deny", "incoming"],
        ["default", "allow", "outgoing"],
        ["default", "deny", "routed"],
        ["--force", "enable"],
    ]


def test_what_is_no_longer_declared_goes_last() -> None:
    old, new = "route allow to 172.29.0.0/16 port 80 proto tcp", "allow from 203.0.113.7"
    commands = plan(State((old,), POLICIES, True), State((new,), POLICIES, True), OURS)
    assert commands == [["allow", "from", "203.0.113.7", "comment", OURS], ["route", "delete", *old.split()[1:]]]


def test_a_changed_file_takes_a_reload_and_nothing_takes_nothing() -> None:
    state = State(("allow 80/tcp",), POLICIES, True)
    assert plan(state, state, OURS) == []
    assert plan(state, state, OURS, reload=True) == [["reload"]]


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("allow  80/tcp", "allow 80/tcp"),
        ("allow from 203.0.113.7/32 to any port 22 proto tcp", "allow from 203.0.113.7 to any port 22 proto tcp"),
        ("allow from 10.1.2.3/8", "allow from 10.0.0.0/8"),
        ("allow from 2001:DB8:0::1/128", "allow from 2001:db8::1"),
    ],
)
def test_rules_are_compared_as_ufw_prints_them(written: str, printed: str) -> None:
    assert normalized(written) == printed


def test_what_is_no_rule_is_refused_with_what_to_write(run_module: RunModule) -> None:
    result = run_module("ufw_state", {"rules": ["open 80"]})
    assert result["failed"]
    assert "'open 80' is not a rule of UFW: write it as `ufw show added` prints it" in result["msg"]


RULES = st.lists(st.sampled_from(["allow 1/tcp", "allow 2/tcp", "deny 3/udp", "route allow to 172.29.0.0/16"]))


def carried_out(rules: Sequence[str], commands: list[list[str]]) -> set[str]:
    left = set(rules)
    for words in commands:
        if "comment" in words:
            left.add(" ".join(words[:-2]))
        elif words[:2] == ["route", "delete"]:
            left.remove(" ".join(["route", *words[2:]]))
        elif words[0] == "delete":
            left.remove(" ".join(words[1:]))
    return left


@given(current=RULES, desired=RULES)
def test_carrying_out_the_plan_gives_what_is_declared(current: list[str], desired: list[str]) -> None:
    found, wanted = State(tuple(current), POLICIES, True), State(tuple(desired), POLICIES, True)
    assert carried_out(current, plan(found, wanted, OURS)) == set(desired)


def test_a_preview_where_ufw_is_not_installed_yet_tells_everything(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run_module("ufw_state", {"rules": ["allow 80/tcp"]}, check=True, diff=True)
    assert result["commands"][0] == "ufw allow 80/tcp comment 'Cariflex EMS'"
    assert result["commands"][-1] == "ufw --force enable"
    assert "allow 80/tcp" in result["diff"]["after"]
