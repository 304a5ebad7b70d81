"""What an inventory may say: names that exist, values of the declared types, secrets that are secret.

Pure: names, values and the roles' argument specs go in, every problem comes out. The forms of an argument spec are
Ansible's (``meta/argument_specs.yml``); they are held more strictly than Ansible does, which converts quietly: a list
written as text, or ``-e flag=false``, passes there and is then misread by the role.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .backup_rules import backup_problems
from .guard_rules import firewall_problems, wireguard_problems
from .ipam_rules import ipam_problems
from .problem import Problem, closest, one_of, shown
from .topology_rules import combined, override_problems, simulation_problems, topology_problems

Spec = Mapping[str, Any]  # one option of an argument spec: type, elements, choices, options, required, default, no_log

MARK = "FILL_IN"  # in inventories/example
_SECRET_NAME = re.compile(r"(?:^|[_.])(?:pass|password|passphrase|secret|token|(?:secret|private|api)_key)s?$")
# Type of an option -> the Python types it takes, what is wrong otherwise, and what to write.
_TYPES: dict[str, tuple[tuple[type, ...], str, str]] = {
    "str": ((str,), "is not a text", "write a text, a number or date in quotes"),
    "path": ((str,), "is not a path", "write a path as text"),
    "bool": ((bool,), "is not true or false", "write true or false, without quotes"),
    "int": ((int,), "is not a whole number", "write a whole number, without quotes"),
    "float": ((int, float), "is not a number", "write a number, without quotes"),
    "list": ((list,), "is not a list", "write it as [a, b]"),
    "dict": ((dict,), "is not a mapping", "write it as 'key: value' lines"),
}


def role_options(argument_specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Spec]:
    """Variable -> spec, over all entry points of all roles.

    Args:
        argument_specs: role -> the content of `argument_specs` in its meta/argument_specs.yml.
    """
    return {
        name: spec
        for entry_points in argument_specs.values()
        for entry_point in entry_points.values()
        for name, spec in (entry_point.get("options") or {}).items()
    }


def is_secret(name: str, spec: Spec | None = None) -> bool:
    """Whether the value of a variable must never be shown: its spec says so, or its name does where there is none."""
    if spec is not None and "no_log" in spec:
        return bool(spec["no_log"])
    return bool(_SECRET_NAME.search(name)) and (spec is None or spec.get("type") in ("str", "dict", "list", "raw"))


# --- names ---------------------------------------------------------------------------------------------------------


def unknown_problems(
    defined: Mapping[str, Any],
    options: Mapping[str, Spec],
    wired: Iterable[str] = (),
    allowed: Iterable[str] = (),
    secrets: Iterable[str] = (),
) -> Iterator[Problem]:
    """Variables of an inventory or of -e that nothing reads.

    Args:
        defined: name -> value, without Ansible's own variables.
        options: what the roles declare.
        wired: further names that playbooks/vars defines or reads.
        allowed: names, or patterns with ``*``, that the operator uses for something else.
        secrets: names whose value must not be shown.
    """
    known = {*options, *wired}
    patterns, hidden_names = tuple(allowed), frozenset(secrets)
    for name, value in defined.items():
        if name in known or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        near = closest(name, known)
        hidden = name in hidden_names or is_secret(name) or (near is not None and is_secret(near, options.get(near)))
        fix = f"did you mean {near}?" if near else "remove it, or allow it in preflight_variables_allowed"
        yield Problem(name, None if hidden else shown(value), "is an unknown variable", fix)


def shadowed_problems(inventory: Mapping[str, Any], wired: Mapping[str, str]) -> Iterator[Problem]:
    """Variables of an inventory that a file of the playbooks sets as well, and therefore silently wins over.

    Args:
        inventory: name -> value, without those given with -e (which win over everything).
        wired: name -> the file that sets it.
    """
    for name in inventory:
        if name in wired:
            fix = (
                "set topology_overrides, which says only what differs"
                if name.startswith("topology")
                else f"remove it here and change what {wired[name]} derives it from, or give it with -e"
            )
            yield Problem(name, None, f"has no effect: {wired[name]} sets it and wins over an inventory", fix)


def missing_problems(
    argument_specs: Mapping[str, Mapping[str, Any]], effective: Mapping[str, Any], set_anywhere: Collection[str]
) -> Iterator[Problem]:
    """Options that a role requires and nobody sets; roles switched off by their ``<role>_enabled`` need nothing.

    Args:
        argument_specs: role -> the content of `argument_specs` in its meta/argument_specs.yml.
        effective: name -> value that the roles will see, as far as it can be known.
        set_anywhere: names of the variables that have a value, known or not.
    """
    for role, entry_points in argument_specs.items():
        options = entry_points.get("main", {}).get("options") or {}
        switch = f"{role}_enabled"
        if effective.get(switch, options.get(switch, {}).get("default", True)) is False:
            continue
        for name, spec in options.items():
            if spec.get("required") and name not in set_anywhere:
                yield Problem(
                    name, None, f"is not set, and the role {role} needs it", "set it in group_vars/all/main.yml"
                )


def unfilled_problems(defined: Mapping[str, Any], hosts: Iterable[str] = ()) -> Iterator[Problem]:
    """Marked values of inventories/example that somebody has copied and not filled in.

    Args:
        defined: name -> value of what the inventory defines.
        hosts: the host's name and address.
    """
    for path, text in [("hosts.yml", host) for host in hosts] + list(_texts("", dict(defined))):
        if MARK in text:
            yield Problem(path, None, "is not filled in", f"write this site's value in place of {MARK}")


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Dotted path -> every text within a value, keys too."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        inner = f"{path}.{key}" if path else str(key)
        yield inner, str(key)
        yield from _texts(inner, entry)
    if isinstance(value, str):
        yield path, value


def missing_secrets(secrets: Mapping[str, str], defined: Iterable[str], make_secrets: str) -> Iterator[Problem]:
    """Secrets that the environment needs (name -> what for) and does not have, as one problem: one command makes all.

    Args:
        secrets: name -> what it is for.
        defined: names that have a value.
        make_secrets: the command that makes missing secrets.
    """
    missing = sorted(secrets.keys() - set(defined))
    if missing:
        listed = ", ".join(f"{name} ({secrets[name]})" for name in missing)
        yield Problem(listed, None, "not set", f"{make_secrets} makes what is missing")


# --- values --------------------------------------------------------------------------------------------------------


def value_problems(path: str, value: Any, spec: Spec, hidden: bool = False) -> Iterator[Problem]:
    """Wrong type, element type, choice or subkey of one option's value.

    Args:
        path: dotted path of the value.
        value: the value, templated.
        spec: the option it is for.
        hidden: whether the value is a secret (see `is_secret`) and must not be shown.
    """
    hidden = hidden or is_secret(path, spec)
    text = None if hidden else shown(value)
    kind = spec.get("type", "str")
    if value is None and not spec.get("required") and spec.get("default") is None:
        return
    types, problem, fix = _TYPES.get(kind, ((object,), "", ""))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types and object not in types):
        if isinstance(value, str) and kind not in ("str", "path"):
            fix += f"; on the command line as JSON, -e '{{\"{path}\": …}}'"
        yield Problem(path, text, problem, fix)
    elif isinstance(value, list):
        element = {"type": spec.get("elements", "raw"), **{k: spec[k] for k in ("choices", "options") if k in spec}}
        for index, entry in enumerate(value):
            yield from value_problems(f"{path}.{index}", entry, {"required": True, **element}, hidden)
    elif isinstance(value, dict) and "options" in spec:
        yield from _subkey_problems(path, value, spec["options"], hidden)
    elif "choices" in spec and value not in spec["choices"]:
        choices = ", ".join(str(choice) for choice in spec["choices"])
        yield Problem(path, text, "is not one of the choices", f"write one of {choices}")


def _subkey_problems(
    path: str, value: Mapping[Any, Any], options: Mapping[str, Spec], hidden: bool
) -> Iterator[Problem]:
    for key, entry in value.items():
        if key in options:
            yield from value_problems(f"{path}.{key}", entry, options[key], hidden)
        else:
            text = None if hidden or is_secret(str(key)) else shown(entry)
            yield Problem(f"{path}.{key}", text, "is an unknown key", one_of(str(key), options))
    for key, spec in options.items():
        if spec.get("required") and key not in value:
            yield Problem(f"{path}.{key}", None, "is missing", "write it")


# --- secrets -------------------------------------------------------------------------------------------------------


def secret_values(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Path and text of each secret within the value of a secret variable.

    A mapping of names to texts holds secrets only; in a list of records only the fields named like one are.
    """
    if isinstance(value, list):
        for index, entry in enumerate(value):
            if isinstance(entry, dict):
                named = {key: field for key, field in entry.items() if is_secret(str(key))}
                yield from secret_values(f"{path}.{index}", named)
            else:
                yield from secret_values(f"{path}.{index}", entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from secret_values(f"{path}.{key}", entry)
    elif value is not None:
        yield path, str(value)


def read_burned(text: str) -> frozenset[str]:
    """The SHA-256 digests in a list of burned values: one a line, the rest of the line is a remark."""
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return frozenset(words[0].lower() for words in lines if words)


def secret_problems(secrets: Mapping[str, str], policy: Policy) -> Iterator[Problem]:
    """Empty, burned, short and shared secrets. Their values are in no message.

    Args:
        secrets: path -> value.
        policy: the burned values, the least length and the command that makes secrets.
    """
    fix = f"remove it where it is defined, then {policy.make_secrets} makes a new one"
    first: dict[str, str] = {}
    for path, value in secrets.items():
        digests = {hashlib.sha256(form.encode()).hexdigest() for form in (value, value.strip(), value.lower())}
        if not value.strip():
            yield Problem(path, None, "is empty", fix)
        elif digests & policy.burned:
            yield Problem(path, None, "is burned: it was written down in public or is a usual default", fix)
        elif len(value) < policy.secret_length_min:
            yield Problem(path, None, f"is too short, {policy.secret_length_min} characters are the least", fix)
        elif value in first:
            yield Problem(path, None, f"is the same as {first[value]}: one could not be changed alone", fix)
        first.setdefault(value, path)


# --- all of it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inventory:
    """What is defined for one host, and what may be.

    Attributes:
        defined: name -> value of what the inventory or -e defines, templated, without Ansible's own variables.
        extra: the names among them that -e gives.
        vaulted: the names among them that stand in a vault file.
        effective: name -> value that the roles will see, as far as it can be known without the host.
        set_anywhere: names of the variables that have a value, known or not.
        topology_declared: the project's topology.
        topology_overrides: what the environment changes of it.
        argument_specs: role -> the content of `argument_specs` in its meta/argument_specs.yml.
        wired: name -> the file of the playbooks that sets it.
        read: names that those files read.
        secrets: name -> purpose of the secrets that the environment needs.
        hosts: the host's name and address.
    """

    defined: Mapping[str, Any]
    extra: frozenset[str]
    vaulted: frozenset[str]
    effective: Mapping[str, Any]
    set_anywhere: frozenset[str]
    topology_declared: Any
    topology_overrides: Any
    argument_specs: Mapping[str, Mapping[str, Any]]
    wired: Mapping[str, str]
    read: frozenset[str]
    secrets: Mapping[str, str]
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Policy:
    """What the operator decides about the rules.

    Attributes:
        burned: SHA-256 digests of values that were published or are somebody's default.
        make_secrets: the command that makes missing secrets.
        secret_length_min: fewest characters of a secret.
        secrets_required: whether a missing secret is a problem.
        variables_allowed: further variables, names or patterns with ``*``.
        units_allowed: further units of sensors.
    """

    burned: frozenset[str]
    make_secrets: str
    secret_length_min: int = 12
    secrets_required: bool = True
    variables_allowed: tuple[str, ...] = ()
    units_allowed: tuple[str, ...] = ()


def inventory_problems(inventory: Inventory, policy: Policy) -> list[Problem]:
    """Every problem of an inventory, in the order in which an operator would look for them."""
    options = role_options(inventory.argument_specs)
    secret_names = {
        name
        for name in inventory.defined
        if name in inventory.secrets or name in inventory.vaulted or is_secret(name, options.get(name))
    }
    hidden = secret_names | inventory.secrets.keys()
    from_files = {name: value for name, value in inventory.defined.items() if name not in inventory.extra}
    known = {*inventory.wired, *inventory.read, *inventory.secrets}
    leaves = dict(leaf for name in sorted(secret_names) for leaf in secret_values(name, inventory.defined[name]))
    problems = [
        *unfilled_problems(inventory.defined, sorted(inventory.hosts)),
        *unknown_problems(inventory.defined, options, known, policy.variables_allowed, hidden),
        *shadowed_problems(from_files, inventory.wired),
        *missing_problems(inventory.argument_specs, inventory.effective, inventory.set_anywhere),
    ]
    for name, value in inventory.effective.items():
        if name in options:
            problems += value_problems(name, value, options[name], name in hidden)
    if policy.secrets_required:
        problems += missing_secrets(inventory.secrets, inventory.defined, policy.make_secrets)
    defaults = {name: spec["default"] for name, spec in options.items() if "default" in spec}
    problems += firewall_problems(defaults | dict(inventory.effective))
    problems += wireguard_problems(defaults | dict(inventory.effective))
    problems += backup_problems(defaults | dict(inventory.effective))
    problems += ipam_problems(defaults | dict(inventory.effective), _domains(inventory))
    problems += secret_problems(leaves, policy)
    problems += override_problems(inventory.topology_declared, inventory.topology_overrides)
    if isinstance(inventory.topology_declared, dict) and isinstance(inventory.topology_overrides, dict):
        topology = combined(inventory.topology_declared, inventory.topology_overrides)
        problems += topology_problems(topology, policy.units_allowed)
        problems += simulation_problems(topology, inventory.defined.get("ems_environment"))
    return problems


def _domains(inventory: Inventory) -> set[str]:
    """Names of the topology's domains; none where it has no such shape, which is reported elsewhere."""
    both = (inventory.topology_declared, inventory.topology_overrides)
    found = [one.get("domains") for one in both if isinstance(one, dict)]
    return {name for domains in found if isinstance(domains, dict) for name, value in domains.items() if value}
