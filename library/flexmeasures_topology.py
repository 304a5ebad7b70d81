#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: account, users, asset types, assets and sensors of FlexMeasures, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flexmeasures_topology
short_description: Make FlexMeasures have the declared account, users, assets and sensors
description:
  - Declares everything in one call to our FlexMeasures plugin (C(cariflex.fm_plugin)), which works out the changes and
    makes them in one transaction. Sensors get exactly the ids that are declared.
  - Where the plugin is absent, it works through FlexMeasures' own API (O(email)), one call for each change. That gives
    ids itself; a sensor that got another id than the declared one is taken back, and the module fails. It makes no
    asset types and no users, moves no sensors, and does not look at roles and at O(user_passwords), which it warns of.
  - What the topology does not mention is left alone and returned as RV(undeclared), unless O(purge) is set.
  - Unit and resolution of a sensor that has data are never changed, and no id is taken from another sensor; the module
    fails then, names everything that is in the way, and nothing has been written.
  - Runs on a host that reaches the server. A call that fails to get through is sent again, up to three times.
author: Cariflex EMS contributors
extends_documentation_fragment: flexmeasures
options:
  topology:
    description:
      - A topology in the form of C(playbooks/vars/topology.yml).
      - Taken from it are C(account), C(users), C(asset_types), C(assets), C(sensors) and C(site.timezone); what else it
        holds is not looked at.
      - C(attributes), C(flex_context) and C(flex_model) of an asset, and C(attributes) of a sensor, are made equal to
        what is given, and left as they are where nothing is given. A reference to a C(sensor) in them names one of the
        declared sensors, and becomes its id.
    type: dict
    required: true
  user_passwords:
    description:
      - E-mail address of a declared user to its password.
      - A new user needs one. The password of an existing user is set when it differs, which ends the user's sessions
        and tokens; without an entry here it stays.
    type: dict
    default: {}
  rename:
    description:
      - Whether a sensor that has a declared id, but another name, gets the declared name. Otherwise that is refused.
    type: bool
    default: false
  purge:
    description:
      - Whether to remove the account's assets and sensors that the topology does not mention. Users stay.
      - Refused when any of those sensors has data, unless O(force) is set.
    type: bool
    default: false
  force:
    description: Whether to remove also what has data.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Only reads, and asks what would change.
  diff_mode:
    support: full
    description: Each entity with the fields that differ. Of a password it tells only that it differs.
  idempotent:
    support: full
    description: A second run changes and writes nothing.
"""

EXAMPLES = r"""
- name: Register account, users, assets and sensors
  flexmeasures_topology:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    topology: "{{ topology }}"
    user_passwords:
      admin@digitribe.fr: "{{ vault_flexmeasures_admin_password }}"
      ven@cariflex.internal: "{{ vault_flexmeasures_ven_password }}"

- name: Register one asset with one sensor
  flexmeasures_topology:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    topology:
      account: Cariflex
      site: {timezone: America/Martinique}
      users: {}
      assets:
        Cariflex: {type: building, latitude: 14.6415, longitude: -61.0242}
      sensors:
        grid_power: {id: 201, unit: kW, resolution: PT15M, asset: Cariflex}
"""

RETURN = r"""
changes:
  description: What was changed (would be, in check mode), those first that others refer to.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(update) or V(delete).
      type: str
    path:
      description: Where the entity stands in the topology.
      type: str
      sample: sensors.pv_01_power
    before:
      description: The fields that differ, as they were; empty when it is created.
      type: dict
    after:
      description: The fields that differ, as they are now.
      type: dict
      sample: {unit: kW}
counts:
  description: How many entities were created, updated, deleted and left unchanged.
  returned: success
  type: dict
  sample: {create: 0, update: 1, delete: 0, unchanged: 75}
undeclared:
  description: Users, assets and sensors that the account has and the topology does not mention.
  returned: success
  type: dict
  sample: {users: [], assets: [], sensors: [{id: 88, name: test, asset: Cariflex}]}
partial:
  description: The changes that had been made when a call failed, in the form of RV(changes). Another run finishes.
  returned: failure
  type: list
  elements: dict
http_status:
  description: Status of the answer that was a failure; 0 when there was none.
  returned: failure of a call
  type: int
through:
  description: V(plugin) or V(api), the way that was taken.
  returned: success
  type: str
api_calls:
  description: How many requests were sent, tries included.
  returned: always
  type: int
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flexmeasures_client import Wish
from ansible.module_utils.flexmeasures_options import CONNECTION, RULES, FlexMeasures, difference, finish, refuse
from ansible.module_utils.flexmeasures_plan import naive_times
from ansible.module_utils.problem import Problem, one_of, shown
from ansible.module_utils.topology_rules import topology_problems

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "topology": {"type": "dict", "required": True},
    "user_passwords": {"type": "dict", "default": {}, "no_log": True},
    "rename": {"type": "bool", "default": False},
    "purge": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
}
SECTIONS = ("account", "users", "asset_types", "assets", "sensors")


def problems(topology: Mapping[str, Any], passwords: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the parts of a topology that FlexMeasures gets, found before anything is sent.

    Units are left to FlexMeasures: it knows more of them than can be told without its unit library.
    """
    for problem in topology_problems(topology):
        path = problem.variable.split(".")
        if (path[1] in SECTIONS and path[-1] != "unit") or path[1:] == ["site", "timezone"]:
            yield problem
    users = topology.get("users") or {}
    for email, password in passwords.items():
        if email not in users:
            yield Problem(f"user_passwords.{email}", None, "belongs to no declared user", one_of(email, users))
        elif not isinstance(password, str) or not password:
            yield Problem(f"user_passwords.{email}", None, "is no text or empty", "write a password in quotes")
    yield from _times(topology)
    yield from _usernames(users)


def _times(topology: Mapping[str, Any]) -> Iterator[Problem]:
    assets = topology.get("assets")
    for name, asset in assets.items() if isinstance(assets, dict) else ():
        for which in ("flex_context", "flex_model") if isinstance(asset, dict) else ():
            yield from naive_times(asset.get(which), f"topology.assets.{name}.{which}")


def _usernames(users: object) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for email, user in users.items() if isinstance(users, dict) else ():
        name = user.get("username") if isinstance(user, dict) else None
        if isinstance(name, str) and first.setdefault(name, email) != email:
            problem = f"is the username of {first[name]} too"
            yield Problem(f"topology.users.{email}.username", shown(name), problem, "choose another username")


def declaration(topology: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a topology that FlexMeasures gets, in the form the plugin takes."""
    return {
        "timezone": topology["site"]["timezone"],
        **{section: topology[section] for section in SECTIONS if section in topology},
    }


def unheeded(topology: Mapping[str, Any], passwords: Mapping[str, Any]) -> Iterator[str]:
    """What is declared and FlexMeasures' own API can neither tell nor change."""
    roles = [email for email, user in (topology.get("users") or {}).items() if user.get("roles")]
    for what, of in (("roles", roles), ("passwords", [*passwords])):
        if of:
            yield (
                f"FlexMeasures' own API does not take {what} of users: those of {', '.join(sorted(of))} stay as "
                "they are, and were not compared. Load our plugin, or see to them at the server."
            )


def run(client: FlexMeasures, options: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
    """Make FlexMeasures as the topology declares it; as `run` of flexmeasures_sensor."""
    refuse(list(problems(options["topology"], options["user_passwords"])), "The topology cannot be registered")
    wish = Wish(
        declaration(options["topology"]),
        options["user_passwords"],
        rename=options["rename"],
        purge=options["purge"],
        force=options["force"],
    )
    result = client.declare(wish, dry_run=check)
    by_api = client.through == "api"
    return {
        "warnings": list(unheeded(options["topology"], options["user_passwords"])) if by_api else [],
        "changed": result["changed"],
        "changes": result["changes"],
        "counts": result["counts"],
        "undeclared": result["undeclared"],
        "diff": difference(result["changes"]),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True, **RULES)
    finish(module, run)


if __name__ == "__main__":
    main()
