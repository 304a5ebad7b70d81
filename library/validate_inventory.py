#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: validate_inventory
short_description: Refuse an inventory that cannot be deployed, before any host is touched
description:
  - Checks everything that an inventory, C(-e) and the topology say, and fails with every problem at once. Each names
    the variable, its value, what is wrong, the fix, and the file and line it was written in.
  - Refused are unknown variables (a typo of a real one, with the suggestion), values of another type than the roles
    declare, variables that C(playbooks/vars) silently overrides, required variables and secrets that are not set, a
    topology that contradicts itself, secrets that are empty, burned, short or shared, and a controller with too old a
    Python or ansible-core.
  - Runs on the controller. It needs no connection to the host and no facts, and starts no process.
  - The value of a secret is in no message and in no log.
options:
  roles_path:
    description: Folder of the roles; their C(meta/argument_specs.yml) say which variables exist and what they take.
    type: path
    required: true
  vars_path:
    description: Folder of the files that every play loads with C(vars_files).
    type: path
    required: true
  burned_secrets:
    description: File with the SHA-256 digests of values that must not serve as secrets, one a line.
    type: path
    required: true
  secrets:
    description: Names of the secrets that the environment needs, each with what it is for.
    type: dict
    default: {}
  secrets_required:
    description: Whether a missing secret is a problem; not where they are made on the way.
    type: bool
    default: true
  secret_length_min:
    description: Fewest characters of a secret.
    type: int
    default: 12
  variables_allowed:
    description: Further variables that the inventory may define, names or patterns with C(*).
    type: list
    elements: str
    default: []
  units_allowed:
    description: Further units that sensors may have; FlexMeasures must know them.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed, so check mode does the same.
  diff_mode:
    support: none
    description: Nothing is ever changed, so there is no difference to show.
  idempotent:
    support: full
    description: The same inventory gives the same answer.
author:
  - Cariflex EMS contributors
"""

EXAMPLES = r"""
- name: Refuse an inventory that cannot be deployed
  validate_inventory:
    roles_path: "{{ playbook_dir }}/../roles"
    vars_path: "{{ playbook_dir }}/vars"
    burned_secrets: "{{ role_path }}/files/burned_secrets.sha256"
"""

RETURN = r"""
problems:
  description: Every problem on a line of its own, with what to type.
  returned: on failure
  type: str
  sample: |
    - image_from = "build": is an unknown variable. Fix: did you mean images_from? (given with -e)
"""
