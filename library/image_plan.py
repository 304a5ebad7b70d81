#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: what every container image is called, and which ones a host still needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_plan
short_description: Tell the reference of every image, and which ones a host still needs
description:
  - Runs on the controller and only reads.
  - An image that is built is named after the SHA-256 of all that it is made from, so one that is present is up to
    date.
author: Cariflex EMS contributors
options:
  images:
    description: Declared images, as C(versions_images) in C(playbooks/vars/versions.yml).
    type: dict
    required: true
  project:
    description: Folder that the paths in O(images) are relative to.
    type: path
    required: true
  serial:
    description: Goes into every built image's name; a new value makes all of them anew.
    type: str
    default: ""
  images_from:
    description: Where images come from. V(auto) is the way this host went before, and undecided on a new host.
    type: str
    choices: [registry, build, archive, auto]
    default: auto
  wanted:
    description: Names of the images that the host needs; empty means all that are not only bases of others.
    type: list
    elements: str
    default: []
  present:
    description: References of the images that are on the host.
    type: list
    elements: str
    default: []
  archived:
    description: Name to reference of the images in the archive that O(images_from=archive) loads.
    type: dict
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
  idempotent:
    support: full
    description: It only reads.
"""

EXAMPLES = r"""
- name: Tell which images are needed
  image_plan:
    images: "{{ versions_images }}"
    project: "{{ playbook_dir | dirname }}"
    images_from: build
    present: ["debian:trixie-slim"]
  delegate_to: localhost
"""

RETURN = r"""
references:
  description: Name to reference of every wanted image; an empty text for one that can be had in no way.
  returned: success
  type: dict
missing:
  description: Images to obtain, bases first, each with C(name), C(reference), C(kind), C(base) and C(options).
  returned: success
  type: list
  elements: dict
left_out:
  description: Names of the images that can be had in no way.
  returned: success
  type: list
  elements: str
decided:
  description: The way images are obtained; null when the registry has to be asked first.
  returned: success
  type: str
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.image_context import ContextError, plan

ARGUMENT_SPEC = {
    "images": {"type": "dict", "required": True},
    "project": {"type": "path", "required": True},
    "serial": {"type": "str", "default": ""},
    "images_from": {"type": "str", "choices": ["registry", "build", "archive", "auto"], "default": "auto"},
    "wanted": {"type": "list", "elements": "str", "default": []},
    "present": {"type": "list", "elements": "str", "default": []},
    "archived": {"type": "dict"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    try:
        result = plan(
            declared=options["images"],
            project=Path(options["project"]),
            serial=options["serial"],
            images_from=options["images_from"],
            wanted=options["wanted"],
            present=options["present"],
            archived=options["archived"],
        )
    except ContextError as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, **asdict(result))


if __name__ == "__main__":
    main()
