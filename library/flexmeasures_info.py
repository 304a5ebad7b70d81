#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: what FlexMeasures has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flexmeasures_info
short_description: Read account, users, asset types, assets and sensors of FlexMeasures
description:
  - Reads what an account has, with ids. Changes nothing.
author: Cariflex EMS contributors
extends_documentation_fragment: flexmeasures
options:
  account:
    description: Name of the account.
    type: str
    required: true
  asset:
    description: Only this asset and what is below it.
    type: str
  sensor:
    description: Only sensors of this name.
    type: str
  with_data:
    description:
      - Whether to tell of each sensor if it has data, as RV(sensors[].data).
      - Through FlexMeasures' own API this costs a call for each sensor of the account.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Changes nothing anyhow.
  diff_mode:
    support: none
    description: There is nothing that changes.
  idempotent:
    support: full
    description: A second run changes and writes nothing.
"""

EXAMPLES = r"""
- name: Read what there is
  flexmeasures_info:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    account: Cariflex
  register: found

- name: Read the sensors of one battery, and whether they have data, through FlexMeasures' own API
  flexmeasures_info:
    url: http://192.168.240.20:5000
    email: admin@digitribe.fr
    password: "{{ vault_flexmeasures_admin_password }}"
    account: Cariflex
    asset: Bat_01
    with_data: true
"""

RETURN = r"""
exists:
  description: Whether there is such an account that can be read.
  returned: success
  type: bool
users:
  description: Users of the account; roles only through our plugin.
  returned: success
  type: list
  elements: dict
  sample: [{email: admin@digitribe.fr, username: admin, roles: [admin]}]
asset_types:
  description: Description by name, of every type that there is.
  returned: success
  type: dict
  sample: {battery: stationary battery}
assets:
  description: Assets of the account.
  returned: success
  type: list
  elements: dict
  sample: [{id: 12, name: Bat_01, type: battery, parent: Cariflex, latitude: 14.6415, longitude: -61.0242}]
sensors:
  description: Sensors of the account, by id.
  returned: success
  type: list
  elements: dict
  sample: [{id: 51, name: bat_01_power, unit: kWh, resolution: PT5M, timezone: America/Martinique, asset: Bat_01}]
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

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.flexmeasures_options import CONNECTION, RULES, FlexMeasures, finish, refuse, unknown_asset
from ansible.module_utils.flexmeasures_plan import below

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "account": {"type": "str", "required": True},
    "asset": {"type": "str"},
    "sensor": {"type": "str"},
    "with_data": {"type": "bool", "default": False},
}


def run(client: FlexMeasures, options: Mapping[str, Any], *, check: bool) -> dict[str, Any]:  # noqa: ARG001 - reads
    """Read what the account has; as `run` of flexmeasures_sensor."""
    state = client.state(options["account"], data=options["with_data"])
    assets, sensors = state.of("assets"), state.of("sensors")
    if options["asset"] is not None:
        if options["asset"] not in assets:
            refuse([unknown_asset("asset", options["asset"], state)], "FlexMeasures cannot be read")
        assets = {key: assets[key] for kind, key in below(state.entities, [options["asset"]]) if kind == "assets"}
        sensors = {id_: fields for id_, fields in sensors.items() if fields["asset"] in assets}
    if options["sensor"] is not None:
        sensors = {id_: fields for id_, fields in sensors.items() if fields["name"] == options["sensor"]}
    data = {id_: {"data": state.data[id_]} for id_ in sensors if id_ in state.data}
    return {
        "changed": False,
        "exists": ("accounts", options["account"]) in state.entities,
        "users": [{"email": email, **fields} for email, fields in state.of("users").items()],
        "asset_types": dict(state.asset_types),
        "assets": [{"id": id_, "name": name, **assets[name]} for name in assets for id_ in state.asset_ids[name]],
        "sensors": [{"id": id_, **fields, **data.get(id_, {})} for id_, fields in sorted(sensors.items())],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True, **RULES)
    finish(module, run)


if __name__ == "__main__":
    main()
