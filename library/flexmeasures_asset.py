#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: one asset of FlexMeasures."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flexmeasures_asset
short_description: Make, change, rename or remove an asset of FlexMeasures
description:
  - An asset is recognized by its O(id) where one is given, else by its O(name), which has to be the only one in the
    account.
  - What an option does not say stays as it is; a new asset takes the coordinates of O(parent).
  - Works through our plugin (O(token)) or through FlexMeasures' own API (O(email)).
author: Cariflex EMS contributors
extends_documentation_fragment: flexmeasures
options:
  account:
    description: Name of the account that has the asset.
    type: str
    required: true
  name:
    description: Name of the asset. Needed, but to remove one by O(id).
    type: str
  id:
    description: Id of an asset that is there. If it has another name, it gets O(name). FlexMeasures gives ids itself.
    type: int
  type:
    description: Name of its type, such as V(solar), V(battery) or V(two-way_evse); needed for a new one.
    type: str
  parent:
    description: Name of the asset that it is part of; an empty text for none.
    type: str
  latitude:
    description: Decimal degrees (WGS 84); goes with O(longitude).
    type: float
  longitude:
    description: Decimal degrees (WGS 84); goes with O(latitude).
    type: float
  attributes:
    description: What else there is to say of it; replaces what there was.
    type: dict
  flex_context:
    description:
      - FlexMeasures' settings of the scheduler for the site; replaces what there was.
      - Sensors stand in it by id, and times with their timezone.
    type: dict
  flex_model:
    description: FlexMeasures' settings of the scheduler for the device, in the same way.
    type: dict
  state:
    description: Whether the asset is to be there. Sensors without data go with it.
    type: str
    choices: [present, absent]
    default: present
  force:
    description: Whether to remove an asset that has others below it, or sensors with data; all of that goes too.
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
- name: Add a battery to the site
  flexmeasures_asset:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    account: Cariflex
    name: Bat_11
    type: battery
    parent: Cariflex
    flex_model: {soc-max: 100 kWh, power-capacity: 50 kW}

- name: Put it elsewhere, through FlexMeasures' own API
  flexmeasures_asset:
    url: http://192.168.240.20:5000
    email: admin@digitribe.fr
    password: "{{ vault_flexmeasures_admin_password }}"
    account: Cariflex
    name: Bat_11
    latitude: 14.61
    longitude: -61.05

- name: Remove it
  flexmeasures_asset:
    url: http://192.168.240.20:5000
    token: "{{ vault_flexmeasures_topology_token }}"
    account: Cariflex
    name: Bat_11
    state: absent
"""

RETURN = r"""
asset:
  description: The asset as it is, with its RV(asset.id); in check mode as it would be. Empty when it is absent.
  returned: success
  type: dict
  sample: {id: 32, name: Bat_11, type: battery, parent: Cariflex, latitude: 14.6415, longitude: -61.0242}
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
from ansible.module_utils.flexmeasures_plan import State
from ansible.module_utils.problem import Problem, one_of, shown

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "account": {"type": "str", "required": True},
    "name": {"type": "str"},
    "id": {"type": "int"},
    "type": {"type": "str"},
    "parent": {"type": "str"},
    "latitude": {"type": "float"},
    "longitude": {"type": "float"},
    "attributes": {"type": "dict"},
    "flex_context": {"type": "dict"},
    "flex_model": {"type": "dict"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
}
SETTINGS = ("attributes", "flex_context", "flex_model")
FIELDS = ("type", "parent", "latitude", "longitude", *SETTINGS)
SUBJECT = "FlexMeasures cannot take this asset"


def run(client: FlexMeasures, options: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
    """Make the asset as it is declared; as `run` of flexmeasures_sensor."""
    refuse(list(_faults(options)), SUBJECT)
    state = client.state(options["account"])
    account_of(state, options["account"])
    found = _found(options, state)
    if options["state"] == "absent":
        return _absent(client, options, found, check=check)
    before = {} if found is None else state.of("assets")[found]
    entry = _entry(options, before, state)
    refuse(list(_missing(options, entry, before, state)), SUBJECT)
    name = options["name"] or found
    above = chain(state, entry["parent"]) if entry["parent"] else {}
    topology = {"account": options["account"], "timezone": "UTC", "assets": {**above, name: entry}}
    try:
        result = client.declare(Wish(topology, {}), dry_run=check)
    except FlexMeasuresError as error:
        raise as_options(error, "assets", name, SUBJECT) from None
    ids = state.asset_ids.get(found or "", ())
    shown_fields = {key: before.get(key, {}) if entry.get(key) is None else entry[key] for key in SETTINGS}
    asset = {**{key: entry.get(key) for key in FIELDS}, **shown_fields, "id": ids[0] if ids else None, "name": name}
    if result["changed"] and not check:
        after = client.state(options["account"])
        asset = {**after.of("assets")[name], "id": after.asset_ids[name][0], "name": name}
    return {
        "changed": result["changed"],
        "asset": asset,
        "changes": result["changes"],
        "diff": difference(result["changes"]),
    }


def _faults(options: Mapping[str, Any]) -> Iterator[Problem]:
    if options["name"] is None and (options["id"] is None or options["state"] == "present"):
        yield Problem("name", None, "is missing", "give the asset's name")
    if (options["latitude"] is None) != (options["longitude"] is None):
        which, other = ("latitude", "longitude") if options["longitude"] is None else ("longitude", "latitude")
        yield Problem(other, None, "is missing", f"give it together with {which}")
    given = {name: options[name] for name in FIELDS}
    yield from entry_problems("assets", options["name"] or "by id", given, units=False)


def _found(options: Mapping[str, Any], state: State) -> str | None:
    """The name that the asset has now; None when it is not there."""
    if options["id"] is not None:
        names = {id_: name for name, ids in state.asset_ids.items() for id_ in ids}
        if options["id"] not in names and options["state"] == "present":
            problem = Problem("id", shown(options["id"]), "is no asset of the account", "leave the id out to make one")
            refuse([problem], SUBJECT)
        return names.get(options["id"])
    return options["name"] if options["name"] in state.of("assets") else None


def _entry(options: Mapping[str, Any], before: Mapping[str, Any], state: State) -> dict[str, Any]:
    """What a topology would say of the asset."""
    entry = {name: before.get(name) if options[name] is None else options[name] for name in FIELDS[:4]}
    entry["parent"] = entry["parent"] or None
    if not before and entry["latitude"] is None:
        place = state.of("assets").get(entry["parent"], {})
        entry.update({name: place.get(name) for name in ("latitude", "longitude")})
    entry.update({name: options[name] for name in SETTINGS if options[name] is not None})
    return {**entry, **({} if options["id"] is None else {"id": options["id"]})}


def _missing(
    options: Mapping[str, Any], entry: Mapping[str, Any], before: Mapping[str, Any], state: State
) -> Iterator[Problem]:
    if entry["type"] is None:
        yield Problem("type", None, "is missing", "give it: the asset is not there yet")
    elif options["type"] is not None and options["type"] not in state.asset_types:
        yield Problem("type", shown(options["type"]), "is no asset type", one_of(options["type"], state.asset_types))
    parent = entry["parent"]
    if parent is not None and parent not in state.of("assets"):
        yield unknown_asset("parent", parent, state)
    elif parent is not None and before and options["name"] in {parent, *chain(state, parent)}:
        yield Problem("parent", shown(parent), "makes the asset a part of itself", "break the loop of parents")


def _absent(client: FlexMeasures, options: Mapping[str, Any], found: str | None, *, check: bool) -> dict[str, Any]:
    if found is None:
        return {"changed": False, "asset": {}, "changes": [], "diff": difference([])}
    if options["name"] not in (None, found):
        problem = Problem("id", shown(options["id"]), f"is the asset {found}", "give its name, or no name")
        refuse([problem], SUBJECT)
    topology = {"account": options["account"], "timezone": "UTC"}
    try:
        wish = Wish(topology, {}, remove_assets=(found,), force=options["force"])
        result = client.declare(wish, dry_run=check)
    except FlexMeasuresError as error:
        raise as_options(error, "assets", found, SUBJECT) from None
    return {
        "changed": result["changed"],
        "asset": {},
        "changes": result["changes"],
        "diff": difference(result["changes"]),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True, **RULES)
    finish(module, run)


if __name__ == "__main__":
    main()
