#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: one event of our OpenADR VTN."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openadr_event
short_description: Create, change or cancel an event of the OpenADR VTN
description:
  - Makes one event of our VTN be as described, through its HTTP API. The VTN checks it against units, ranges, times,
    other events and the OpenADR schema before it accepts it, and sends it to each VEN until that VEN has answered.
  - An event that differs becomes a new version. VENs that the new version leaves out are told that it is cancelled.
  - Runs on a host that reaches the VTN's API. A call that fails to get through is sent again, up to three times.
author: Cariflex EMS contributors
options:
  url:
    description:
      - Scheme, host and port of the VTN's HTTP API, for instance C(http://192.168.240.10:8081).
      - Proxies, netrc files and redirects are not followed, so that the token reaches nobody else.
    type: str
    required: true
  token:
    description: Content of the VTN's secret C(openadr_api_token).
    type: str
    required: true
  event_id:
    description: Id of the event; a letter, then up to 99 letters, digits, dots, hyphens and underscores.
    type: str
    required: true
  state:
    description:
      - V(present) for an event as described.
      - V(absent) for an event that no VEN acts upon. It is cancelled and stays in the VTN's history, so that its id
        cannot be used again. An event that has ended, or that never was, is left as it is.
    type: str
    choices: [present, absent]
    default: present
  signal_name:
    description:
      - Signal of the event. Required for O(state=present).
      - One of V(ENERGY_PRICE), V(LOAD_CONTROL), V(SIMPLE), V(LOAD_DISPATCH) and V(CHARGE_STATE). The VTN checks it.
    type: str
  unit:
    description: Unit of the values, such as V(EUR/MWh). Required for O(state=present).
    type: str
  start:
    description:
      - Start as ISO 8601 with an offset from UTC and whole seconds. Required for O(state=present).
      - One without an offset is refused before the VTN is asked.
    type: str
  intervals:
    description: Intervals, one after the other from O(start). Required for O(state=present).
    type: list
    elements: dict
    suboptions:
      duration:
        description: ISO 8601 duration of whole minutes, such as V(PT1H).
        type: str
        required: true
      value:
        description: Number in O(unit).
        type: float
        required: true
  targets:
    description:
      - VEN ids and V(group:<name>), or V(all) for every VEN of the VTN. Required for O(state=present).
      - A group stands for the VENs that are in it when the task runs.
    type: list
    elements: str
  priority:
    description: V(0) for none, V(1) for the highest, up to V(255).
    type: int
    default: 0
  test_event:
    description: Whether VENs answer the event and do not act upon it.
    type: bool
    default: false
  timeout:
    description: How long one try waits for an answer, in seconds.
    type: int
    default: 30
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
    description: The VTN is asked what it would make of the event, refuses what it would refuse, and changes nothing.
  diff_mode:
    support: full
    description: What an operator decides about an event, where it differs.
  idempotent:
    support: full
    description: The same event again is no new version.
"""

EXAMPLES = r"""
- name: Tomorrow's prices
  openadr_event:
    url: http://192.168.240.10:8081
    token: "{{ vault_openadr_api_token }}"
    event_id: price-2026-12-01
    signal_name: ENERGY_PRICE
    unit: EUR/MWh
    start: "2026-12-01T00:00:00-04:00"
    intervals:
      - {duration: PT7H, value: 88}
      - {duration: PT10H, value: 120}
      - {duration: PT7H, value: 210.5}
    targets: all

- name: At most 70 % of maximum consumption for two hours
  openadr_event:
    url: http://192.168.240.10:8081
    token: "{{ vault_openadr_api_token }}"
    event_id: limit-1
    signal_name: LOAD_CONTROL
    unit: "%"
    start: "2026-12-01T18:00:00-04:00"
    intervals: [{duration: PT2H, value: 70}]
    targets: [Cariflex-VEN-001]
    priority: 1

- name: Cancel it
  openadr_event:
    url: http://192.168.240.10:8081
    token: "{{ vault_openadr_api_token }}"
    event_id: limit-1
    state: absent
"""

RETURN = r"""
event:
  description: Current version of the event (in check mode, the one there would be); null when there never was one.
  returned: success
  type: dict
  sample:
    event_id: limit-1
    signal_name: LOAD_CONTROL
    unit: "%"
    start: "2026-12-01T22:00:00+00:00"
    end: "2026-12-02T00:00:00+00:00"
    intervals: [{duration: PT2H, value: 70.0}]
    targets: [Cariflex-VEN-001]
    priority: 1
    test_event: false
    modification_number: 0
    status: far
    opts: {Cariflex-VEN-001: null}
api_calls:
  description: How many requests were sent, tries included.
  returned: always
  type: int
  sample: 2
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.http_api import ApiError
from ansible.module_utils.openadr_client import OpenadrClient
from ansible.module_utils.problem import Problem, shown

DECIDED = ("signal_name", "unit", "start", "intervals", "targets")
ARGUMENT_SPEC = {
    "url": {"type": "str", "required": True},
    "token": {"type": "str", "required": True, "no_log": True},
    "event_id": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "signal_name": {"type": "str"},
    "unit": {"type": "str"},
    "start": {"type": "str"},
    "intervals": {
        "type": "list",
        "elements": "dict",
        "options": {
            "duration": {"type": "str", "required": True},
            "value": {"type": "float", "required": True},
        },
    },
    "targets": {"type": "list", "elements": "str"},
    "priority": {"type": "int", "default": 0},
    "test_event": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 30},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}
OVER = ("cancelled", "completed")

Event = Mapping[str, Any] | None


def content(event: Event) -> dict[str, Any]:
    """What an operator decides about an event; empty when there is none, or none any more."""
    if event is None or event["status"] == "cancelled":
        return {}
    return {name: event[name] for name in (*DECIDED, "priority", "test_event")}


def difference(before: Event, after: Event) -> dict[str, dict[str, Any]]:
    """The fields of two versions that differ, as Ansible shows a diff."""
    old, new = content(before), content(after)
    names = [name for name in (old or new) if name not in old or name not in new or old[name] != new[name]]
    return {
        "before": {name: old[name] for name in names if name in old},
        "after": {name: new[name] for name in names if name in new},
    }


def start_problem(start: str) -> Problem | None:
    """What is wrong with a start before the VTN is asked: it is no time, or one that each timezone reads otherwise."""
    try:
        # Python before 3.11 does not know Z
        moment = datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", start.strip()))
    except ValueError:
        return Problem("start", shown(start), "is no time", "write one such as 2026-12-01T00:00:00-04:00")
    if moment.tzinfo is None:
        fix = f"write its offset too, such as {moment.isoformat()}-04:00"
        return Problem("start", shown(start), "is a time without an offset from UTC", fix)
    return None


def ensured(client: OpenadrClient, options: Mapping[str, Any], check: bool) -> tuple[Event, Event]:
    """Bring an event to its state, or find out what that would make of it.

    Returns:
        The versions before and after; the same one when nothing is to change.

    Raises:
        ApiError: the VTN cannot be reached or refuses.
    """
    event_id = options["event_id"]
    before = client.event(event_id)
    if options["state"] == "absent":
        if before is None or before["status"] in OVER:
            return before, before
        return before, {**before, "status": "cancelled"} if check else client.cancel(event_id)
    wanted = {name: options[name] for name in (*DECIDED, "priority", "test_event")}
    if wanted["targets"] == ["all"]:
        wanted["targets"] = "all"
    return before, (client.preview if check else client.put)(event_id, wanted)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC, required_if=[("state", "present", DECIDED)], supports_check_mode=True
    )
    options = module.params
    problem = start_problem(options["start"]) if options["state"] == "present" else None
    if problem:
        module.fail_json(msg=str(problem), api_calls=0)
    calls = 0
    try:
        client = OpenadrClient(
            options["url"],
            options["token"],
            timeout=options["timeout"],
            validate_certs=options["validate_certs"],
            ca_path=options["ca_path"],
        )
        try:
            before, after = ensured(client, options, module.check_mode)
        finally:
            calls = client.calls
    except ApiError as error:
        module.fail_json(msg=str(error), api_calls=calls)
    # Told by what there was and not by the last answer: a change whose answer got lost is sent again and was one.
    changed = content(before) != content(after)
    module.exit_json(changed=changed, event=after, api_calls=calls, diff=difference(before, after))


if __name__ == "__main__":
    main()
