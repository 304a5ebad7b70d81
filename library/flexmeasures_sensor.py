#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: one sensor of FlexMeasures."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flexmeasures_sensor
short_description: Make, change, rename or remove a sensor of FlexMeasures
description:
  - A sensor is recognized by its O(id) where one is given, else by O(name) and O(asset).
  - What an option does not say stays as it is.
  - Through our plugin (O(token)) a new sensor gets exactly the O(id) that is given. FlexMeasures' own API (O(email))
    gives ids itself; a sensor that got another one than the declared is taken back, and the module fails.
  - Unit and resolution of a sensor that has data are never changed, and no id is taken from another sensor.
  - FlexMeasures' own API moves no sensor to another asset.
author: Cariflex EMS contributors
extends_documentation_fragment: flexmeasures
options:
  account:
    description: Name of the account that has the sensor.
    type: str
    required: true
  name:
    description: Name of the sensor. Needed, but to remove one by O(id).
    type: str
  id:
    description:
      - Its id. Without it a new one gets the next.
    type: int
  asset:
    description: Name of the asset that it belongs to; needed for a new one.
    type: str
  unit:
    description: Its unit as FlexMeasures writes it, such as V(kW), V(W/m²) or V(EUR/MWh); needed for a new one.
    type: str
  resolution:
    description: How long one value stands for, as an ISO 8601 duration such as V(PT15M); needed for a new one.
    type: str
  timezone:
    description: Name of the tz database; V(UTC) for a new one when left out.
    type: str
  attributes:
    description: What else there is to say of it; replaces what there was.
    type: dict
  rename:
    description: Whether a sensor with the O(id), but another name, gets the O(name). Otherwise that is refused.
    type: bool
    default: false
  state:
    description: Whether the sensor is to be there.
    type: str
    choices: [present, absent]
    default: present
  force:
    description: Whether to remove a sensor that has data; the data goes too.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Only reads, and asks what would change.
  diff_mode:
    support: full
    description: The fields that differ, of each entity that changes.
  idempotent:
    support: full
    description: A second run changes and writes nothing.
"""

EXAMPLES = r"""
- name: Measure the power of the site under a fixed id
  flexmeasures_sensor:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    account: Cariflex
    name: grid_power
    id: 201
    asset: Cariflex
    unit: kW
    resolution: PT15M
    timezone: America/Martinique
    attributes: {consumption_is_positive: true}

- name: Rename it
  flexmeasures_sensor:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    account: Cariflex
    id: 201
    name: site_power
    rename: true

- name: Remove a sensor that has no data, through FlexMeasures' own API
  flexmeasures_sensor:
    url: http://192.168.240.20:5000
    email: admin@digitribe.fr
    password: "{{ vault_flexmeasures_admin_password }}"
    account: Cariflex
    name: site_power
    asset: Cariflex
    state: absent
"""

RETURN = r"""
sensor:
  description: The sensor as it is (would be, in check mode), with its RV(sensor.id); empty when it is absent.
  returned: success
  type: dict
  sample: {id: 201, name: grid_power, unit: kW, resolution: PT15M, timezone: America/Martinique, asset: Cariflex}
changes:
  description: What was changed (would be, in check mode).
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(create), V(update) or V(delete).
      type: str
    path:
      description: Where the entity stands in a topology.
      type: str
    before:
      description: The fields that differ, as they were; empty when it is created.
      type: dict
    after:
      description: The fields that differ, as they are now; empty when it is deleted.
      type: dict
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
from ansible.module_utils.flexmeasures_client import FlexMeasuresError, Wish
from ansible.module_utils.flexmeasures_options import (
    CONNECTION,
    RULES,
    FlexMeasures,
    account_of,
    as_options,
    chain,
    difference,
    entry_problems,
    finish,
    refuse,
    unknown_asset,
)
from ansible.module_utils.flexmeasures_plan import State, canonical
from ansible.module_utils.problem import Problem, shown

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "account": {"type": "str", "required": True},
    "name": {"type": "str"},
    "id": {"type": "int"},
    "asset": {"type": "str"},
    "unit": {"type": "str"},
    "resolution": {"type": "str"},
    "timezone": {"type": "str"},
    "attributes": {"type": "dict"},
    "rename": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
}
FIELDS = ("asset", "unit", "resolution", "timezone", "attributes")
SUBJECT = "FlexMeasures cannot take this sensor"


def run(client: FlexMeasures, options: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
    """Make the sensor as it is declared.

    Args:
        client: FlexMeasures.
        options: the module's.
        check: change nothing.

    Returns:
        The result, without the number of calls.

    Raises:
        RefusedError: the options do not allow it.
        FlexMeasuresError: FlexMeasures does not.
    """
    refuse(list(_faults(options)), SUBJECT)
    state = client.state(options["account"])
    account_of(state, options["account"])
    refuse(list(_ambiguities(options, state)), SUBJECT)
    id_ = _found(options, state)
    if options["state"] == "absent":
        return _absent(client, options, id_, state, check=check)
    before = {} if id_ is None else state.of("sensors").get(id_, {})
    entry = {name: before.get(name) if options[name] is None else options[name] for name in FIELDS}
    entry["timezone"] = entry["timezone"] or "UTC"
    entry["resolution"] = canonical(entry["resolution"] or "") or None
    # what is not given is not declared, so that nobody's change is undone
    entry["attributes"] = options["attributes"]
    entry["id"] = state.free_sensor_id if id_ is None else id_
    refuse(list(_missing(entry, before, state)), SUBJECT)
    name = options["name"] or before.get("name")
    topology = {
        "account": options["account"],
        "timezone": entry["timezone"],
        "assets": chain(state, entry["asset"]),
        "sensors": {name: {key: value for key, value in entry.items() if value is not None}},
    }
    try:
        result = client.declare(Wish(topology, {}, rename=options["rename"]), dry_run=check)
    except FlexMeasuresError as error:
        raise as_options(error, "sensors", name, SUBJECT) from None
    given = (result.get("ids") or {}).get(f"sensors.{name}", entry["id"])
    kept = before.get("attributes", {}) if options["attributes"] is None else options["attributes"]
    return {
        "changed": result["changed"],
        "sensor": {**entry, "id": given, "name": name, "attributes": kept or {}},
        "changes": result["changes"],
        "diff": difference(result["changes"]),
    }


def _faults(options: Mapping[str, Any]) -> Iterator[Problem]:
    if options["name"] is None and (options["id"] is None or options["state"] == "present"):
        yield Problem("name", None, "is missing", "give the sensor's name")
        return
    given = {name: options[name] for name in ("id", *FIELDS)}
    yield from entry_problems("sensors", options["name"] or "by id", given, units=False)


def _ambiguities(options: Mapping[str, Any], state: State) -> Iterator[Problem]:
    """Several sensors of the name, where nothing tells which of them is meant."""
    if options["id"] is not None or options["asset"] is not None:
        return
    ids = [id_ for id_, fields in state.of("sensors").items() if fields["name"] == options["name"]]
    if len(ids) > 1:
        problem = f"is the name of several sensors of the account: {', '.join(map(str, ids))}"
        yield Problem("name", shown(options["name"]), problem, "give the asset or the id too")


def _found(options: Mapping[str, Any], state: State) -> int | None:
    """The id of the sensor that is meant; None for one that is not there and may have any id."""
    if options["id"] is not None:
        return int(options["id"])
    for id_, fields in state.of("sensors").items():
        if fields["name"] == options["name"] and options["asset"] in (None, fields["asset"]):
            return int(id_)
    return None


def _missing(entry: Mapping[str, Any], before: Mapping[str, Any], state: State) -> Iterator[Problem]:
    for name in ("asset", "unit", "resolution"):
        if entry[name] is None and not before:
            yield Problem(name, None, "is missing", "give it: the sensor is not there yet")
    if entry["asset"] is not None and entry["asset"] not in state.of("assets"):
        yield unknown_asset("asset", entry["asset"], state)


def _absent(
    client: FlexMeasures, options: Mapping[str, Any], id_: int | None, state: State, *, check: bool
) -> dict[str, Any]:
    found = state.of("sensors").get(id_)
    if found is None or id_ is None:
        return {"changed": False, "sensor": {}, "changes": [], "diff": difference([])}
    if options["name"] not in (None, found["name"]):
        problem = f"is taken by the sensor {found['name']} on the asset {found['asset']}"
        refuse([Problem("id", shown(id_), problem, "give its name, or no name")], SUBJECT)
    topology = {"account": options["account"], "timezone": "UTC"}
    wish = Wish(topology, {}, remove_sensors=(id_,), force=options["force"])
    try:
        result = client.declare(wish, dry_run=check)
    except FlexMeasuresError as error:
        raise as_options(error, "sensors", found["name"], SUBJECT) from None
    return {
        "changed": result["changed"],
        "sensor": {},
        "changes": result["changes"],
        "diff": difference(result["changes"]),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True, **RULES)
    finish(module, run)


if __name__ == "__main__":
    main()
