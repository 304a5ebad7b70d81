"""The rules for variables and secrets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.controller_rules import controller_problems
from ansible.module_utils.inventory_rules import (
    Inventory,
    Policy,
    inventory_problems,
    is_secret,
    missing_problems,
    missing_secrets,
    read_burned,
    secret_problems,
    secret_values,
    shadowed_problems,
    unknown_problems,
    value_problems,
)

PROJECT = Path(__file__).resolve().parents[3]
OPTIONS: dict[str, dict[str, Any]] = {
    "images_from": {"type": "str", "choices": ["registry", "build", "archive", "auto"], "default": "auto"},
    "grafana_port": {"type": "int", "default": 3000},
    "grafana_admin_password": {"type": "str", "required": True, "no_log": True},
}
SPECS = {"images": {"main": {"options": OPTIONS}}}
MAKE = "ansible-playbook playbooks/secrets.yml -i inventories/dev"
GOOD = "a-good-long-generated-secret"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- names ---------------------------------------------------------------------------------------------------------


def test_typo_is_refused_with_the_name_that_was_meant() -> None:
    (found,) = unknown_problems({"image_from": "build", "images_from": "build"}, OPTIONS)
    assert str(found) == 'image_from = "build": is an unknown variable. Fix: did you mean images_from?'


def test_names_that_the_wiring_knows_or_the_operator_allows() -> None:
    defined = {"topology_overrides": {}, "monitoring_level": 1, "site_contact": "x"}
    known = {"wired": ["topology_overrides"], "allowed": ["monitoring_*", "site_contact"]}
    assert list(unknown_problems(defined, OPTIONS, **known)) == []
    assert len(list(unknown_problems(defined, OPTIONS))) == 3


@pytest.mark.parametrize("name", ["grafana_admin_pasword", "my_password", "xyz_token"])
def test_value_of_an_unknown_secret_is_not_shown(name: str) -> None:
    (found,) = unknown_problems({name: "hunter2hunter2"}, OPTIONS)
    assert "hunter2" not in str(found)


def test_variable_that_a_file_of_the_playbooks_wins_over() -> None:
    wired = {"versions_traefik": "playbooks/vars/versions.yml", "topology": "playbooks/vars/wiring.yml"}
    first, second = shadowed_problems({"versions_traefik": "3.7.1", "topology": {}, "images_from": "build"}, wired)
    assert "has no effect: playbooks/vars/versions.yml sets it" in str(first)
    assert "topology_overrides" in second.fix


def test_required_variable_that_nobody_sets() -> None:
    (found,) = missing_problems(SPECS, {}, {"images_from"})
    assert found.variable == "grafana_admin_password"
    assert list(missing_problems(SPECS, {}, {"grafana_admin_password"})) == []
    assert list(missing_problems(SPECS, {"images_enabled": False}, set())) == []


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("text", {"type": "str"}),
        ("", {}),
        (5, {"type": "int"}),
        (5, {"type": "float"}),
        (0.5, {"type": "float"}),
        (False, {"type": "bool"}),
        (["a"], {"type": "list", "elements": "str"}),
        ([1, "a", None], {"type": "list"}),
        ({"a": 1}, {"type": "dict"}),
        ([{"name": "a"}], {"type": "list", "elements": "dict", "options": {"name": {"type": "str", "required": True}}}),
        ("build", {"type": "str", "choices": ["registry", "build"]}),
        (None, {"type": "str"}),
        (object(), {"type": "raw"}),
    ],
)
def test_value_of_the_declared_type(value: object, spec: dict[str, Any]) -> None:
    assert list(value_problems("images_x", value, spec)) == []


@pytest.mark.parametrize(
    ("value", "spec", "path", "problem", "fix"),
    [
        (17, {"type": "str"}, "x", "not a text", "in quotes"),
        (True, {"type": "str"}, "x", "not a text", "in quotes"),
        ("5", {"type": "int"}, "x", "not a whole number", "-e '{\"x\": …}'"),
        (True, {"type": "int"}, "x", "not a whole number", "without quotes"),
        (1.5, {"type": "int"}, "x", "not a whole number", "without quotes"),
        ("false", {"type": "bool"}, "x", "not true or false", "-e '{\"x\": …}'"),
        (1, {"type": "bool"}, "x", "not true or false", "without quotes"),
        ("a,b", {"type": "list"}, "x", "not a list", "[a, b]"),
        ("a=b", {"type": "dict"}, "x", "not a mapping", "key: value"),
        (None, {"type": "str", "default": "a"}, "x", "not a text", "write a text"),
        (["a", 5], {"type": "list", "elements": "str"}, "x.1", "not a text", "in quotes"),
        ("biuld", {"choices": ["registry", "build"]}, "x", "not one of the choices", "one of registry, build"),
        (["c"], {"type": "list", "elements": "str", "choices": ["a"]}, "x.0", "not one of the choices", "one of a"),
        ({"nam": 1}, {"type": "dict", "options": {"name": {"type": "str"}}}, "x.nam", "unknown key", "mean name?"),
        ([{}], {"type": "list", "options": {"name": {"required": True}}}, "x.0.name", "is missing", "write it"),
        ({"n": []}, {"type": "dict", "options": {"n": {"type": "int"}}}, "x.n", "not a whole number", "whole number"),
    ],
)
def test_value_of_another_type(value: object, spec: dict[str, Any], path: str, problem: str, fix: str) -> None:
    found = list(value_problems("x", value, spec))
    assert [entry.variable for entry in found] == [path]
    assert problem in found[0].problem
    assert fix in found[0].fix


def test_secret_of_the_wrong_type_is_not_shown() -> None:
    (found,) = value_problems("redis_password", 4711, {"type": "str", "no_log": True})
    assert "4711" not in str(found)


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spec", "secret"),
    [
        ("redis_password", {"type": "str"}, True),
        ("flexmeasures_user_passwords", {"type": "dict"}, True),
        ("grafana_secret_key", None, True),
        ("stack_secrets_owner", {"type": "int"}, False),
        ("postgres_password_file", {"type": "path"}, False),
        ("flexmeasures_token_lifetime", {"type": "int"}, False),
        ("preflight_secrets", {"type": "dict", "no_log": False}, False),
        ("anything", {"type": "str", "no_log": True}, True),
    ],
)
def test_what_is_a_secret(name: str, spec: dict[str, Any] | None, secret: bool) -> None:
    assert is_secret(name, spec) is secret


def test_secrets_within_values() -> None:
    assert dict(secret_values("p", {"a@b.c": "one", "d": {"e": "two"}})) == {"p.a@b.c": "one", "p.d.e": "two"}
    assert dict(secret_values("p", [{"name": "flexmeasures", "password": "one"}])) == {"p.0.password": "one"}
    assert dict(secret_values("p", 12345)) == {"p": "12345"}


BURNED = read_burned((PROJECT / "roles/preflight/files/burned_secrets.sha256").read_text(encoding="utf-8"))
POLICY = Policy(burned=BURNED, make_secrets=MAKE)


@pytest.mark.parametrize(
    "value",
    [
        *("admin", "password", "changeme", "postgres", "grafana", "flexmeasures", "secret", "123456", "letmein"),
        *("Admin", "PASSWORD", " admin\n"),
    ],
)
def test_burned_secret_is_refused(value: str) -> None:
    (found,) = secret_problems({"redis_password": value}, POLICY)
    assert found.problem.startswith("is burned")
    assert MAKE in found.fix
    assert value not in str(found).replace("secrets.yml", "").replace("redis_password", "")


def test_password_of_the_documented_system_is_burned() -> None:
    assert "fc6b22e2d284205ffae28c4757cd85acbaa4f096c0f7875f1423a1ac0f686ccd" in BURNED


@pytest.mark.parametrize("value", ["", "   ", "\n"])
def test_empty_secret_is_refused(value: str) -> None:
    (found,) = secret_problems({"redis_password": value}, POLICY)
    assert found.problem == "is empty"


def test_short_secret_is_refused() -> None:
    (found,) = secret_problems({"redis_password": "x7Kq"}, POLICY)
    assert "12 characters are the least" in found.problem
    assert "x7Kq" not in str(found)


def test_shared_secret_is_refused() -> None:
    (found,) = secret_problems({"a_password": GOOD, "b_password": GOOD, "c_password": GOOD + "x"}, POLICY)
    assert found.variable == "b_password"
    assert "same as a_password" in found.problem
    assert GOOD not in str(found)


def test_missing_secrets_are_one_problem_with_one_command() -> None:
    (found,) = missing_secrets({"vault_a": "A", "vault_b": "B", "vault_c": "C"}, {"vault_b"}, MAKE)
    assert found.variable == "vault_a (A), vault_c (C)"
    assert found.fix.startswith(MAKE)


def test_list_of_burned_values_is_digests_only() -> None:
    assert read_burned(f"# remark\n\n{sha256('a').upper()}  remark\n{sha256('b')}\n") == {sha256("a"), sha256("b")}
    assert len(BURNED) > 50
    assert all(len(digest) == 64 for digest in BURNED)


# --- all of it -----------------------------------------------------------------------------------------------------


def inventory(topology: dict[str, Any], **changes: Any) -> Inventory:
    fields: dict[str, Any] = {
        "defined": {"grafana_admin_password": GOOD},
        "extra": frozenset(),
        "vaulted": frozenset(),
        "effective": {"grafana_admin_password": GOOD},
        "set_anywhere": frozenset(["grafana_admin_password"]),
        "topology_declared": topology,
        "topology_overrides": {},
        "argument_specs": SPECS,
        "wired": {"versions_traefik": "playbooks/vars/versions.yml"},
        "read": frozenset(["topology_overrides"]),
        "secrets": {},
    }
    return Inventory(**{**fields, **changes})


def test_valid_inventory(topology: dict[str, Any]) -> None:
    assert inventory_problems(inventory(topology), POLICY) == []


def test_variable_of_the_playbooks_may_be_given_on_the_command_line(topology: dict[str, Any]) -> None:
    defined = {"grafana_admin_password": GOOD, "versions_traefik": "3.7.1"}
    assert inventory_problems(inventory(topology, defined=defined, extra=frozenset(["versions_traefik"])), POLICY) == []
    (found,) = inventory_problems(inventory(topology, defined=defined), POLICY)
    assert "has no effect" in found.problem


def test_what_was_copied_and_not_filled_in_is_refused(topology: dict[str, Any]) -> None:
    overrides = {"domains": {"grafana": "grafana.FILL_IN"}}
    unfilled = inventory(
        topology,
        defined={"topology_overrides": overrides},
        topology_overrides=overrides,
        hosts=frozenset(["FILL_IN"]),
    )
    found = [str(problem) for problem in inventory_problems(unfilled, POLICY) if "not filled in" in problem.problem]
    assert [text.partition(":")[0] for text in found] == ["hosts.yml", "topology_overrides.domains.grafana"]


def test_whatever_stands_in_the_vault_is_a_secret(topology: dict[str, Any]) -> None:
    defined = {"grafana_admin_password": GOOD, "oddly_named": "hunter2hunter2"}
    (found,) = inventory_problems(inventory(topology, defined=defined, vaulted=frozenset(["oddly_named"])), POLICY)
    assert found.variable == "oddly_named"
    assert "hunter2" not in str(found)


def test_missing_secrets_may_be_accepted(topology: dict[str, Any]) -> None:
    lacking = inventory(topology, secrets={"vault_redis_password": "Redis"})
    assert len(inventory_problems(lacking, POLICY)) == 1
    accepting = Policy(burned=BURNED, make_secrets=MAKE, secrets_required=False)
    assert inventory_problems(lacking, accepting) == []


def test_overrides_of_the_wrong_type_are_one_problem(topology: dict[str, Any]) -> None:
    (found,) = inventory_problems(inventory(topology, topology_overrides="domains"), POLICY)
    assert found.variable == "topology_overrides"


# --- controller ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("python", "ansible", "names"),
    [
        ((3, 11, 0), (2, 19), []),
        ((3, 13, 1), (2, 21), []),
        ((3, 10, 13), (2, 19), ["Python"]),
        ((3, 11, 7), (2, 18), ["ansible-core"]),
        ((3, 9, 2), (2, 14), ["Python", "ansible-core"]),
    ],
)
def test_controller_that_is_too_old(python: tuple[int, ...], ansible: tuple[int, ...], names: list[str]) -> None:
    found = controller_problems(python, ansible)
    assert [problem[0] for problem in found] == names
    assert all("make dev" in problem[3] for problem in found)
