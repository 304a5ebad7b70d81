#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: UFW on, with exactly the declared rules and policies, in one task."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ufw_state
short_description: UFW on, with exactly the declared rules and policies, in one task
description:
  - Adds the declared rules that are missing, sets the policies, turns UFW on, and deletes the rules that an earlier run
    added and that are no longer declared, in this order.
  - Ours are the rules with the comment O(comment). Rules that an operator added are left alone.
  - C(community.general.ufw) sets one rule a task, and cannot tell which rule is no longer declared.
author: Cariflex EMS contributors
options:
  rules:
    description: Rules as C(ufw show added) prints them, without C(ufw) and the comment.
    type: list
    elements: str
    required: true
  comment:
    description: What marks our rules; also shown by C(ufw status).
    type: str
    default: Cariflex EMS
  incoming:
    description: Policy for what comes in and no rule names.
    type: str
    choices: [allow, deny, reject]
    default: deny
  outgoing:
    description: Policy for what goes out.
    type: str
    choices: [allow, deny, reject]
    default: allow
  routed:
    description: Policy for what is passed on to another machine or a container.
    type: str
    choices: [allow, deny, reject]
    default: deny
  reload:
    description: Whether files that UFW reads were changed, so that it has to read them again.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is changed; where UFW is not installed yet, everything counts as missing.
  diff_mode:
    support: full
    description: Shows rules, policies and whether UFW is on.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Let in what is public, and SSH from one network
  ufw_state:
    rules:
      - allow 80/tcp
      - allow 443/tcp
      - allow from 10.8.0.0/24 to any port 22 proto tcp
"""

RETURN = r"""
commands:
  description: The commands that were run (would be, in check mode).
  returned: success
  type: list
  elements: str
"""

import shlex
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.ufw_state import DIRECTIONS, State, normalized, plan, read_policies, read_rules, text

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "rules": {"type": "list", "elements": "str", "required": True},
    "comment": {"type": "str", "default": "Cariflex EMS"},
    "incoming": {"type": "str", "choices": ["allow", "deny", "reject"], "default": "deny"},
    "outgoing": {"type": "str", "choices": ["allow", "deny", "reject"], "default": "allow"},
    "routed": {"type": "str", "choices": ["allow", "deny", "reject"], "default": "deny"},
    "reload": {"type": "bool", "default": False},
}
SETTINGS = Path("/etc/default/ufw")


def ufw(module: AnsibleModule, *arguments: str) -> str:
    """What a command of UFW prints; the module fails where it does."""
    status, printed, errors = module.run_command(["ufw", *arguments], environ_update={"LC_ALL": "C"})
    if status != 0:
        module.fail_json(msg=f"ufw {shlex.join(arguments)}: {(errors or printed).strip()}")
    return str(printed)


def read_state(module: AnsibleModule, comment: str) -> State:
    """UFW as it is; in check mode it may not be installed yet."""
    if module.check_mode and shutil.which("ufw") is None:
        return State()
    return State(
        rules=read_rules(ufw(module, "show", "added"), comment),
        policies=read_policies(SETTINGS.read_text(encoding="utf-8")),
        active="Status: active" in ufw(module, "status"),
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    try:
        rules = tuple(normalized(rule) for rule in options["rules"])
    except ValueError as problem:
        module.fail_json(msg=f"rules: {problem}")
    desired = State(rules, {name: options[name] for name in DIRECTIONS}, active=True)
    current = read_state(module, options["comment"])
    commands = plan(current, desired, options["comment"], options["reload"])
    if not module.check_mode:
        for command in commands:
            ufw(module, *command)
    module.exit_json(
        changed=bool(commands),
        commands=[f"ufw {shlex.join(command)}" for command in commands],
        diff={"before": text(current), "after": text(desired)} if commands else {},
    )


if __name__ == "__main__":
    main()
