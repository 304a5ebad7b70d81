#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: one address of phpIPAM, given or the first that is free."""

from __future__ import annotations

DOCUMENTATION = r"""
module: phpipam_address
short_description: Make one address of phpIPAM as declared, or take the first that is free
description:
  - For a whole subnet use M(phpipam_subnet), which reads and writes it at once.
  - A new address in the range of a subnet within O(subnet), or that a subnet around it has, is refused, since it would
    be in two.
  - With O(ip=first_free) the hostname says which address is meant, so a second run finds the one that the first took.
  - What an option does not say is left as it is; an empty text clears a field.
author: Cariflex EMS contributors
extends_documentation_fragment: phpipam
options:
  section:
    description: Name of the section, exactly as it is written there.
    type: str
    required: true
  subnet:
    description: The subnet that the address is in, in CIDR form. It has to be there.
    type: str
    required: true
  ip:
    description: The address, or V(first_free) for the first that is free, which needs O(hostname).
    type: str
    required: true
  state:
    description: Whether the address is to be there.
    type: str
    choices: [present, absent]
    default: present
  hostname:
    description: Name of the address, of 255 characters at most.
    type: str
  description:
    description: What it is, in 64 characters at most.
    type: str
  tag:
    description:
      - Name of its tag, such as V(Used), V(Reserved) or V(DHCP); of a new address V(Used) when left out.
      - Where several tags have one name, with its id, as V(Docker/5).
    type: str
  mac:
    description: Its hardware address.
    type: str
  owner:
    description: Whose it is, in 128 characters at most.
    type: str
  note:
    description: What else there is to say.
    type: str
  is_gateway:
    description: Whether it is the gateway. A subnet has one; the former one loses the flag.
    type: bool
  exclude_ping:
    description: Whether phpIPAM's scans leave it alone; they would change its tag.
    type: bool
  custom_fields:
    description: Values by name of custom field, with or without C(custom_).
    type: dict
attributes:
  check_mode:
    support: full
    description: Only reads. Of V(first_free) it tells the address that would be taken now.
  diff_mode:
    support: full
    description: The fields that differ.
  idempotent:
    support: full
    description: A second run changes and writes nothing.
"""

EXAMPLES = r"""
- name: Keep an address of the OpenADR network
  phpipam_address:
    url: https://ipam.example.org
    app_id: cariflex
    app_code: "{{ vault_phpipam_app_code }}"
    section: Cariflex EMS
    subnet: 192.168.240.0/24
    ip: 192.168.240.11
    hostname: openadr-ven
    tag: Used
    exclude_ping: true

- name: Take the first free address for a new device
  phpipam_address:
    url: https://ipam.example.org
    app_id: cariflex
    app_code: "{{ vault_phpipam_app_code }}"
    section: Cariflex EMS
    subnet: 192.168.240.0/24
    ip: first_free
    hostname: battery-gateway
  register: battery_gateway
"""

RETURN = r"""
ip:
  description: The address; null when it is not there.
  returned: success
  type: str
api_calls:
  description: How many requests were sent, tries included.
  returned: always
  type: int
partial:
  description: What had been written when a call failed.
  returned: failure
  type: dict
http_status:
  description: Status of the answer that was a failure; 0 when there was none.
  returned: failure of a call
  type: int
api_code:
  description: The code in the body of that answer.
  returned: failure of a call
  type: int
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.phpipam_book import Book, Written, difference
from ansible.module_utils.phpipam_client import PhpIpamClient, PhpIpamError
from ansible.module_utils.phpipam_options import (
    ADDRESS_FIELDS,
    CONNECTION,
    RefusedError,
    finish,
    network_of,
    refuse,
    subnet_of,
)
from ansible.module_utils.phpipam_plan import Plan, Row, canonical, conflicts, plan, problems, wanted
from ansible.module_utils.phpipam_tree import Subnet, below, cidr
from ansible.module_utils.problem import shown

FIRST_FREE = "first_free"
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "section": {"type": "str", "required": True},
    "subnet": {"type": "str", "required": True},
    "ip": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **ADDRESS_FIELDS,
}


def run(client: PhpIpamClient, options: Mapping[str, Any], *, check: bool, written: Written) -> dict[str, Any]:
    """Make the address as it is declared; see `phpipam_options.Run`."""
    network, book = network_of(options["subnet"]), Book(client)
    entry = {**{name: options[name] for name in ADDRESS_FIELDS}, "ip": canonical(options["ip"])}
    free = options["ip"] == FIRST_FREE
    if free and not options["hostname"]:
        raise RefusedError("ip = first_free needs a hostname: it says which address is meant the next time.")
    # an address of the subnet stands for the one that is not known yet
    checked = {**entry, "ip": str(next(iter(network.hosts())))} if free else entry
    refuse(problems([checked], network, tags=None, path="options"))
    section = book.section(options["section"])
    subnets = [] if section is None else book.subnets(int(section["id"]))
    found = subnet_of(subnets, network)
    if found is None:
        where = f"section {shown(options['section'])} of this phpIPAM"
        raise RefusedError(f"subnet = {options['subnet']} is not in the {where}. Fix: make it with phpipam_subnet.")
    subnet_id = int(found["id"])
    rows = book.rows(subnet_id)
    if free:
        named = [row for row in rows if row.hostname == options["hostname"]]
        if len(named) > 1:
            several = ", ".join(row.ip for row in named)
            raise RefusedError(
                f"hostname = {options['hostname']} is that of {several}. Fix: delete all but one of them."
            )
        entry = {**entry, "ip": named[0].ip if named else ""}
    if options["state"] == "absent":
        return _absent(book, subnet_id, [row for row in rows if row.ip == entry["ip"]], written, check=check)
    refuse(problems([checked], network, tags=book.tags, path="options"))
    if free and not entry["ip"]:
        return _take(book, subnets, subnet_id, entry, written, check=check)
    desired = wanted([entry], book.tags)
    refuse(conflicts(rows, desired))
    changes = plan(rows, desired)
    refuse(book.problems(changes, subnets, subnet_id))
    if not check:
        book.write(subnet_id, changes, written)
    return {"changed": changes.changed, "ip": desired[0].ip, "diff": difference(changes, book.tags)}


def _take(
    book: Book,
    subnets: Sequence[Subnet],
    subnet_id: int,
    entry: Mapping[str, Any],
    written: Written,
    *,
    check: bool,
) -> dict[str, Any]:
    """Take the first address that is free."""
    names = ", ".join(cidr(child) for child in below(subnets, subnet_id))
    if names:
        raise RefusedError(
            f"ip = first_free: phpIPAM gives none of a subnet that has others within it ({names}). "
            "Fix: let subnet be one of them."
        )
    full = RefusedError("No address of the subnet is free. Fix: delete one that is not used, or take another subnet.")
    ip = book.next_free(subnet_id)
    if ip is None:
        raise full
    (one,) = wanted([{**entry, "ip": ip}], book.tags)
    refuse(book.problems(Plan(create=(one,)), subnets, subnet_id))
    if not check:
        try:
            ip = book.first_free(subnet_id, one)  # somebody may have taken the one we saw
        except PhpIpamError as error:
            if error.api_code == 404:
                raise full from None
            raise
        written.created.append(ip)
    (one,) = wanted([{**entry, "ip": ip}], book.tags)
    return {"changed": True, "ip": ip, "diff": difference(Plan(create=(one,)), book.tags)}


def _absent(book: Book, subnet_id: int, rows: list[Row], written: Written, *, check: bool) -> dict[str, Any]:
    if len(rows) > 1:
        raise RefusedError(f"{rows[0].ip} is in the subnet {len(rows)} times. Fix: delete all but one of the rows.")
    changes = Plan(delete=tuple(rows))
    if not check:
        book.write(subnet_id, changes, written)
    return {"changed": changes.changed, "ip": None, "diff": difference(changes, book.tags if rows else {})}


def main() -> None:
    """Run the module."""
    finish(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True), run)


if __name__ == "__main__":
    main()
