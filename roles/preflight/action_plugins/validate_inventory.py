"""Refuse an inventory that cannot be deployed, before any host is touched (documented in library/).

An action plugin because it runs on the controller without a connection, sees which variables the inventory, -e and the
playbooks define, and keeps secrets within the process. It collects; the rules are pure and live in module_utils.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
import jinja2
import jinja2.nodes
from ansible import constants
from ansible.errors import AnsibleError
from ansible.module_utils.ansible_release import __version__ as ansible_version
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # private to Ansible: without it messages only lack file and line
    Origin = None

# Ansible offers the project's module_utils to modules, which it packs, but not to plugins in its own process.
_MODULE_UTILS = str(Path(__file__).resolve().parents[3] / "module_utils")
if _MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_MODULE_UTILS)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "roles_path": {"type": "path", "required": True},
    "vars_path": {"type": "path", "required": True},
    "burned_secrets": {"type": "path", "required": True},
    "secrets": {"type": "dict", "default": {}},
    "secrets_required": {"type": "bool", "default": True},
    "secret_length_min": {"type": "int", "default": 12},
    "variables_allowed": {"type": "list", "elements": "str", "default": []},
    "units_allowed": {"type": "list", "elements": "str", "default": []},
}
_DECLARED, _OVERRIDES = "topology_declared", "topology_overrides"
_WITH_PHPIPAM = "topology_phpipam"
# A value made from these is known only when the host has been asked.
_OF_THE_HOST = re.compile(r"\b(?:ansible_\w+|host_preflight)\b")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Collects what is defined and declared, and applies the rules to it."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check everything; `task_vars` are the host's variables, not yet templated."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        # Only this file and controller_rules need be readable for the old versions that are refused.
        from ansible.module_utils.controller_rules import controller_problems

        release = tuple(int(part) for part in ansible_version.split(".")[:2])
        too_old = controller_problems(tuple(sys.version_info[:3]), release)
        if too_old:
            lines = ["{} {} {}. Fix: {}.".format(*problem) for problem in too_old]
            return {**result, "failed": True, "msg": "\n".join(lines)}

        from ansible.module_utils.problem import headline, listing

        _, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        problems = self._problems(variables, arguments)
        host = variables["inventory_hostname"]
        if problems:
            message = headline(problems, f"The inventory of {host} cannot be deployed")
            return {**result, "failed": True, "msg": message, "problems": listing(problems)}
        return {**result, "msg": f"The inventory of {host} is valid."}

    def _problems(self, variables: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[Any]:
        from ansible.module_utils import inventory_rules as rules

        roles = [path for path in sorted(Path(arguments["roles_path"]).iterdir()) if path.is_dir()]
        specs = {role.name: self._load(role / "meta/argument_specs.yml").get("argument_specs", {}) for role in roles}
        wired, read = self._wiring(Path(arguments["vars_path"]))
        own = variables["hostvars"][variables["inventory_hostname"]]
        names = [name for name in own if _is_operators(name)]
        options = rules.role_options(specs)

        # A value may be derived from a role's default, which is not loaded before the role.
        scope = {name: value for role in roles for name, value in self._load(role / "defaults/main.yml").items()}
        scope.update(variables)
        values, broken = self._evaluated(
            {*options, *names, _DECLARED, _OVERRIDES, _WITH_PHPIPAM} & variables.keys(), scope
        )
        declared = values.get(_DECLARED, {})
        if values.get("phpipam_deploy") is True:
            declared = rules.combined(declared, values.get(_WITH_PHPIPAM, {}))
        inventory = rules.Inventory(
            defined={name: values.get(name) for name in names},
            extra=frozenset(load_extra_vars(self._loader)),
            vaulted=frozenset(name for name in names if "vault" in Path(_origin(variables[name])).name),
            effective={name: values[name] for name in options if name in values},
            set_anywhere=frozenset(name for name, value in variables.items() if value is not None),
            topology_declared=declared,
            topology_overrides=values.get(_OVERRIDES, {}),
            argument_specs=specs,
            wired=wired,
            read=read,
            secrets=arguments["secrets"],
            hosts=frozenset({variables["inventory_hostname"], str(variables.get("ansible_host", ""))}),
        )
        policy = rules.Policy(
            burned=rules.read_burned(Path(arguments["burned_secrets"]).read_text(encoding="utf-8")),
            make_secrets="ansible-playbook playbooks/secrets.yml" + _inventory_options(variables),
            secret_length_min=arguments["secret_length_min"],
            secrets_required=arguments["secrets_required"],
            variables_allowed=tuple(arguments["variables_allowed"]),
            units_allowed=tuple(arguments["units_allowed"]),
        )
        unreadable = [
            rules.Problem(name, None, f"cannot be evaluated: {error}", "correct the expression")
            for name, error in broken.items()
            if name in names or name == _DECLARED
        ]
        origins = dict(_origins(values))
        return [
            problem._replace(where=_nearest(problem.variable, origins))
            for problem in unreadable + rules.inventory_problems(inventory, policy)
        ]

    def _load(self, path: Path) -> dict[str, Any]:
        """The content of one of the project's own YAML files; empty where there is no such file."""
        return (self._loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.is_file() else {}

    def _wiring(self, folder: Path) -> tuple[dict[str, str], frozenset[str]]:
        """What the playbooks' variable files set (name -> file), and the names that their expressions read."""
        wired: dict[str, str] = {}
        read: set[str] = set()
        for path in sorted(folder.glob("*.yml")):
            content = self._load(path)
            wired.update(dict.fromkeys(content, _short(str(path))))
            for text in _texts(content):
                read.update(node.name for node in jinja2.Environment().parse(text).find_all(jinja2.nodes.Name))  # noqa: S701 - parses only
        return wired, frozenset(read - wired.keys())

    def _evaluated(self, names: set[str], scope: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Name -> value of what can be known without the host, and name -> message of what can never be."""
        templar = self._templar.copy_with_new_env(available_variables=scope)
        values: dict[str, Any] = {}
        broken: dict[str, str] = {}
        for name in sorted(names):
            try:
                values[name] = templar.template(scope[name])
            except AnsibleError as error:
                if not any(_OF_THE_HOST.search(text) for text in _texts(scope[name])):
                    broken[name] = str(error).splitlines()[0]
        return values, broken


def _is_operators(name: str) -> bool:
    """Whether a variable of a host comes from an inventory or -e, not from Ansible or a task that ran before."""
    return not name.startswith(("ansible_", "_")) and name not in constants.INTERNAL_STATIC_VARS


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)


def _short(path: str) -> str:
    """A path as an operator would type it: relative where it is below the working directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _inventory_options(variables: Mapping[str, Any]) -> str:
    return "".join(f" -i {_short(source)}" for source in variables.get("ansible_inventory_sources") or ())


def _origin(value: Any) -> str:
    """File and line that a value was written in, such as ``inventories/dev/group_vars/all/main.yml:3``; or empty."""
    tag = Origin.get_tag(value) if Origin else None
    if tag is None:
        return ""
    if tag.path:
        return f"{_short(tag.path)}:{tag.line_num}"
    return "given with -e" if "'-e'" in str(tag.description) else str(tag.description)


def _origins(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path -> origin of every value; the topology's parts count under ``topology``, overrides last and most."""
    origin = _origin(value)
    if origin:
        yield path, origin
        section, _, rest = path.partition(".")
        if section in (_DECLARED, _OVERRIDES):
            yield f"topology.{rest}", origin
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _origins(entry, f"{path}.{key}" if path else str(key))


def _nearest(path: str, origins: Mapping[str, str]) -> str | None:
    """The origin of a value, or of the closest thing around it that has one."""
    while path and path not in origins:
        path = path.rpartition(".")[0]
    return origins.get(path)
