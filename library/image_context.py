#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: pack the build context of an image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_context
short_description: Write an image's build context as a reproducible tar archive
description:
  - Runs on the controller. Times, owners and modes are fixed, so the same content gives the same bytes.
author: Cariflex EMS contributors
options:
  context:
    description: Folder with the context.
    type: path
    required: true
  dockerfile:
    description: The Dockerfile, added to the archive as C(Dockerfile).
    type: path
    required: true
  exclude:
    description: Paths below O(context) that are left out.
    type: list
    elements: str
    default: []
  dest:
    description: Where the archive is written.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: The archive is not written in check mode.
  diff_mode:
    support: none
    description: The archive is an intermediate file.
  idempotent:
    support: full
    description: The same content gives the same bytes and no change.
"""

EXAMPLES = r"""
- name: Pack Traefik's build context
  image_context:
    context: files/images/traefik
    dockerfile: files/images/traefik/Dockerfile
    dest: /tmp/traefik.tar
  delegate_to: localhost
"""

RETURN = r"""
dest:
  description: Where the archive is.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.image_context import pack

ARGUMENT_SPEC = {
    "context": {"type": "path", "required": True},
    "dockerfile": {"type": "path", "required": True},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "dest": {"type": "path", "required": True},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    content = pack(Path(options["context"]), Path(options["dockerfile"]), tuple(options["exclude"]))
    dest = Path(options["dest"])
    changed = not dest.is_file() or dest.read_bytes() != content
    if changed and not module.check_mode:
        dest.parent.mkdir(parents=True, exist_ok=True)
        dest.write_bytes(content)
    module.exit_json(changed=changed, dest=str(dest))


if __name__ == "__main__":
    main()
