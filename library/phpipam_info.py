#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: what a phpIPAM holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: phpipam_info
short_description: Read sections, subnets and addresses of phpIPAM
description:
  - Changes nothing. Without O(section) it tells the sections, with it the section's subnets, with O(subnet) the
    addresses.
author: Cariflex EMS contributors
extends_documentation_fragment: phpipam
options:
  section:
    description: Name of a section, exactly as it is written there.
    type: str
  subnet:
    description: A subnet of O(section), in CIDR form.
    type: str
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to differ.
  idempotent:
    support: full
    description: It changes nothing.
"""

EXAMPLES = r"""
- name: Read the addresses of the OpenADR network
  phpipam_info:
    url: https://ipam.example.org
    app_id: cariflex
    app_code: "{{ vault_phpipam_app_code }}"
    section: Cariflex EMS
    subnet: 192.168.240.0/24
  register: openadr_internal
"""

RETURN = r"""
sections:
  description: Names of all sections.
  returned: success
  type: list
  elements: str
subnets:
  description: The subnets of the section, in CIDR form, with description and id; empty without O(section).
  returned: success
  type: list
  elements: dict
  sample: [{subnet: 192.168.240.0/24, description: openadr-internal, id: 7}]
addresses:
  description: The addresses of the subnet, each with what is not empty; empty without O(subnet).
  returned: success
  type: list
  elements: dict
  sample: [{ip: 192.168.240.10, hostname: openadr-vtn, tag: Used}]
api_calls:
  description: How many requests were sent, tries included.
  returned: always
  type: int
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.phpipam_book import Book
from ansible.module_utils.phpipam_client import PhpIpamClient
from ansible.module_utils.phpipam_options import CONNECTION, RefusedError, finish, network_of, subnet_of
from ansible.module_utils.phpipam_plan import told
from ansible.module_utils.phpipam_tree import cidr
from ansible.module_utils.problem import one_of, shown

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {**CONNECTION, "section": {"type": "str"}, "subnet": {"type": "str"}}


def run(client: PhpIpamClient, options: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    """Read what is asked for; see `phpipam_options.Run`."""
    if options["subnet"] and not options["section"]:
        raise RefusedError("subnet needs section: the same subnet may be in several.")
    network, book = network_of(options["subnet"]) if options["subnet"] else None, Book(client)
    sections = {str(row.get("name")): int(row["id"]) for row in book.sections()}
    result: dict[str, Any] = {"changed": False, "sections": list(sections), "subnets": [], "addresses": []}
    if not options["section"]:
        return result
    if options["section"] not in sections:
        fix = one_of(options["section"], sections)
        raise RefusedError(f"section = {shown(options['section'])} is no section of this phpIPAM. Fix: {fix}")
    section_id = sections[options["section"]]
    subnets = book.subnets(section_id)
    if network is not None:
        found = subnet_of(subnets, network)
        subnets = [] if found is None else [found]
        names = {id_: name for name, id_ in book.tags.items()}
        result["addresses"] = [told(row, names) for each in subnets for row in book.rows(int(each["id"]))]
    result["subnets"] = [
        {
            "subnet": cidr(row),
            "description": row.get("description") or "",
            "id": int(row["id"]),
        }
        for row in subnets
    ]
    return result


def main() -> None:
    """Run the module."""
    finish(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True), run)


if __name__ == "__main__":
    main()
