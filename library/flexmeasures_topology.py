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
    makes them in one transaction. Sensors get exactly the ids that are declared, which FlexMeasures' own API cannot do.
  - What the topology does not mention is left alone and returned as RV(undeclared). Nothing is ever removed.
  - Unit and resolution of a sensor that has data are never changed, and no id is taken from another sensor; the module
    fails then, names everything that is in the way, and nothing has been written.
  - Runs on a host that reaches the server. A call that fails to get through is sent again, up to three times.
author: Cariflex EMS contributors
options:
  url:
    description:
      - Scheme, host and port of the FlexMeasures server itself, for instance C(http://192.168.240.20:5000).
      - Proxies, netrc files and redirects are not followed, so that the token reaches nobody else.
    type: str
    required: true
  token:
    description: Content of the secret that the plugin reads from C(CARIFLEX_TOPOLOGY_TOKEN_FILE).
    type: str
    required: true
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
  host_header:
    description: Name to ask for, when the address in O(url) is none of the server's C(TRUSTED_HOSTS).
    type: str
  timeout:
    description: How long one try waits for an answer, in seconds.
    type: int
    default: 60
  validate_certs:
    description: Whether to check the server's certificate when O(url) is https.
    type: bool
    default: true
  ca_path:
    description: File with the certificate authorities to check it with; the system's when left out.
    type: path
attributes:
  check_mode:
    support: full
    description: The plugin is asked what would change, and changes nothing.
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
    user_passwords: "{{ vault_flexmeasures_user_passwords }}"

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
        grid_power: {id: 101, unit: kW, resolution: PT15M, asset: Cariflex}
"""

RETURN = r"""
changes:
  description: What was changed (would be, in check mode), those first that others refer to.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create) or V(update).
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
  description: How many entities were created, updated and left unchanged.
  returned: success
  type: dict
  sample: {create: 0, update: 1, unchanged: 75}
undeclared:
  description: Users, assets and sensors that the account has and the topology does not mention.
  returned: success
  type: dict
  sample: {users: [], assets: [], sensors: [{id: 88, name: test, asset: Cariflex}]}
api_calls:
  description: How many requests were sent, tries included.
  returned: always
  type: int
  sample: 1
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flexmeasures_client import FlexMeasuresClient
from ansible.module_utils.http_api import ApiError
from ansible.module_utils.problem import Problem, headline, listing, one_of
from ansible.module_utils.topology_rules import topology_problems

ARGUMENT_SPEC = {
    "url": {"type": "str", "required": True},
    "token": {"type": "str", "required": True, "no_log": True},
    "topology": {"type": "dict", "required": True},
    "user_passwords": {"type": "dict", "default": {}, "no_log": True},
    "host_header": {"type": "str"},
    "timeout": {"type": "int", "default": 60},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
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


def declaration(topology: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a topology that FlexMeasures gets, in the form the plugin takes."""
    return {
        "timezone": topology["site"]["timezone"],
        **{section: topology[section] for section in SECTIONS if section in topology},
    }


def difference(changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The changes as Ansible shows a diff."""
    return {side: {change["path"]: change[side] for change in changes} for side in ("before", "after")}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    found = list(problems(options["topology"], options["user_passwords"]))
    if found:
        module.fail_json(msg=f"{headline(found, 'The topology cannot be registered')}:\n{listing(found)}", api_calls=0)
    calls = 0
    try:
        client = FlexMeasuresClient(
            options["url"],
            options["token"],
            host_header=options["host_header"],
            timeout=options["timeout"],
            validate_certs=options["validate_certs"],
            ca_path=options["ca_path"],
        )
        try:
            result = client.declare(
                declaration(options["topology"]), options["user_passwords"], dry_run=module.check_mode
            )
        finally:
            calls = client.calls
    except ApiError as error:
        module.fail_json(msg=str(error), api_calls=calls)
    module.exit_json(
        changed=result["changed"],
        changes=result["changes"],
        counts=result["counts"],
        undeclared=result["undeclared"],
        api_calls=client.calls,
        diff=difference(result["changes"]),
    )


if __name__ == "__main__":
    main()
