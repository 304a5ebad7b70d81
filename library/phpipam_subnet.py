#!/usr/bin/python
# Copyright: Cariflex EMS contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: one subnet of phpIPAM with all its addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: phpipam_subnet
short_description: Make a subnet of phpIPAM, and the addresses in it, as declared
description:
  - Reads the subnet and all its addresses at once, works out what differs, and writes only that; deletions first, then
    changes, then new addresses. A second run makes four calls, however many addresses there are.
  - What an option does not say is left as it is; an empty text clears a field.
  - Works with phpIPAM 1.7.4 and 1.8.2. An answer is judged by its body.
  - The mask of a subnet is never changed, since phpIPAM moves the subnet then. A subnet that overlaps others of its
    section is refused, in check mode too.
  - A new address in the range of a subnet within O(subnet), or that a subnet around it has, is refused, since it would
    be in two.
author: Cariflex EMS contributors
extends_documentation_fragment: phpipam
options:
  section:
    description: Name of the section, exactly as it is written there.
    type: str
    required: true
  create_section:
    description: Whether to make the section when there is none.
    type: bool
    default: false
  section_permissions:
    description:
      - Of a section that is made, what groups may do, by the id of the group, V(1) read, V(2) write, V(3) administrate.
      - Without it only administrators see the section.
    type: dict
  subnet:
    description: The subnet, in CIDR form.
    type: str
    required: true
  description:
    description: What the subnet is.
    type: str
  custom_fields:
    description: Values by name of custom field of subnets, with or without C(custom_).
    type: dict
  state:
    description: Whether the subnet is to be there.
    type: str
    choices: [present, absent]
    default: present
  force_delete:
    description: Whether to delete a subnet that has addresses, or subnets within it; they go with it, theirs too.
    type: bool
    default: false
  addresses:
    description: What addresses of the subnet are to be.
    type: list
    elements: dict
    default: []
    suboptions:
      ip:
        description: The address.
        type: str
      range:
        description: Several addresses that are alike, as C(first-last), in the place of O(addresses[].ip).
        type: str
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
  match_by:
    description:
      - What an address is recognized by.
      - V(hostname) is for containers, whose addresses move; a row whose address has moved is replaced.
    type: str
    choices: [ip, hostname]
    default: ip
  purge:
    description: Which addresses that are not declared are deleted.
    type: str
    choices: [none, managed, all]
    default: none
  managed_by:
    description: Marks the declared addresses as ours, in their C(owner); needed for O(purge=managed).
    type: str
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: full
    description: The subnet and each address, with the fields that differ.
  idempotent:
    support: full
    description: A second run changes and writes nothing.
"""

EXAMPLES = r"""
- name: Keep the OpenADR network in the address book
  phpipam_subnet:
    url: https://ipam.example.org
    app_id: cariflex
    app_code: "{{ vault_phpipam_app_code }}"
    section: Cariflex EMS
    create_section: true
    subnet: 192.168.240.0/24
    description: openadr-internal
    managed_by: cariflex
    purge: managed
    addresses:
      - {ip: 192.168.240.1, hostname: gateway, is_gateway: true, exclude_ping: true}
      - {ip: 192.168.240.10, hostname: openadr-vtn, exclude_ping: true}
      - {range: 192.168.240.128-192.168.240.254, tag: Reserved, exclude_ping: true}

- name: Keep up with containers whose addresses move
  phpipam_subnet:
    url: https://ipam.example.org
    app_id: cariflex
    app_code: "{{ vault_phpipam_app_code }}"
    section: Cariflex EMS
    create_section: true
    subnet: 172.29.0.0/16
    match_by: hostname
    addresses:
      - {ip: 172.29.0.3, hostname: flexmeasures-server, mac: "02:42:ac:1d:00:03"}
"""

RETURN = r"""
subnet_id:
  description: Id of the subnet in phpIPAM; null when it is not there, or would be made.
  returned: success
  type: int
created:
  description: Addresses that were created (would be, in check mode).
  returned: success
  type: list
  elements: str
updated:
  description: Addresses that were changed.
  returned: success
  type: list
  elements: str
deleted:
  description: Addresses that were deleted.
  returned: success
  type: list
  elements: str
unchanged:
  description: How many declared addresses were as declared.
  returned: success
  type: int
api_calls:
  description: How many requests were sent, tries included.
  returned: always
  type: int
partial:
  description:
    - What had been written when a call failed, by C(created), C(updated) and C(deleted). Another run finishes.
    - Addresses, and C(section …) and C(subnet …) where these were written before.
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

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.phpipam_book import Book, Written, difference
from ansible.module_utils.phpipam_client import PhpIpamClient
from ansible.module_utils.phpipam_options import (
    ADDRESS_FIELDS,
    CONNECTION,
    RefusedError,
    finish,
    network_of,
    refuse,
    subnet_of,
)
from ansible.module_utils.phpipam_plan import (
    CUSTOM,
    LENGTHS,
    SECTION_LENGTH,
    Network,
    Plan,
    conflicts,
    custom_name,
    cut_problems,
    plan,
    problems,
    wanted,
)
from ansible.module_utils.phpipam_tree import Subnet, below, cidr, overlapping
from ansible.module_utils.problem import Problem, one_of, shown

SHORTEST_NAME = 3  # of a section
ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "section": {"type": "str", "required": True},
    "create_section": {"type": "bool", "default": False},
    "section_permissions": {"type": "dict"},
    "subnet": {"type": "str", "required": True},
    "description": {"type": "str"},
    "custom_fields": {"type": "dict"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force_delete": {"type": "bool", "default": False},
    "addresses": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"ip": {"type": "str"}, "range": {"type": "str"}, **ADDRESS_FIELDS},
    },
    "match_by": {"type": "str", "choices": ["ip", "hostname"], "default": "ip"},
    "purge": {"type": "str", "choices": ["none", "managed", "all"], "default": "none"},
    "managed_by": {"type": "str"},
}


def run(client: PhpIpamClient, options: Mapping[str, Any], *, check: bool, written: Written) -> dict[str, Any]:
    """Make the subnet as it is declared.

    Args:
        client: phpIPAM.
        options: the module's.
        check: only read.
        written: keeps what was written.

    Returns:
        The result, without the number of calls.

    Raises:
        RefusedError: the options, or what there is, do not allow it.
        ApiError: a call failed.
    """
    network, book = network_of(options["subnet"]), Book(client)
    rules = {"match_by": options["match_by"], "managed_by": options["managed_by"]}
    refuse([*_option_problems(options), *problems(options["addresses"], network, tags=None, **rules)])
    if options["purge"] == "managed" and not options["managed_by"]:
        raise RefusedError("purge = managed needs managed_by: it says which addresses are ours.")
    sections = {str(row.get("name")): row for row in book.sections()}
    section = sections.get(options["section"])
    if section is None and options["state"] == "present":
        _new_section(options, sections)
    section_id = None if section is None else int(section["id"])
    subnets = [] if section_id is None else book.subnets(section_id)
    found = subnet_of(subnets, network)
    if options["state"] == "absent":
        return _absent(book, subnets, found, options, check=check)
    if found is None and section is not None and str(section.get("strictMode")) == "1":
        refuse(_overlaps(subnets, network))
    subnet_id = None if found is None else int(found["id"])
    fields = _subnet_fields(found or {}, options)
    rows = [] if subnet_id is None else book.rows(subnet_id)
    refuse(problems(options["addresses"], network, tags=book.tags, **rules) if options["addresses"] else ())
    desired = wanted(options["addresses"], book.tags if options["addresses"] else {}, options["managed_by"])
    chosen = {**rules, "purge": options["purge"]}
    refuse(conflicts(rows, desired, **chosen))
    changes = plan(rows, desired, **chosen)
    custom = {name: str(value or "") for name, value in fields.items() if name.startswith(CUSTOM)}
    refuse([*book.problems(changes, subnets, subnet_id), *book.field_problems(custom, "subnets")])
    if not check:
        if section_id is None:
            rights = {str(group): str(right) for group, right in (options["section_permissions"] or {}).items()}
            section_id = book.create_section(options["section"], rights)
            written.created.append(f"section {options['section']}")
        if subnet_id is None:
            subnet_id = book.create_subnet(section_id, network, fields)
            written.created.append(f"subnet {network}")
        elif fields:
            book.update_subnet(subnet_id, fields)
            written.updated.append(f"subnet {network}")
        book.write(subnet_id, changes, written)
    return {
        "changed": found is None or bool(fields) or changes.changed,
        "subnet_id": subnet_id,
        **_counts(changes),
        "diff": _difference(found, fields, changes, book, options),
    }


def _option_problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    """What phpIPAM would not keep as it is, of the options beside the addresses."""
    custom = {f"custom_fields.{name}": text for name, text in (options["custom_fields"] or {}).items()}
    names = ("section", "description", "managed_by")
    yield from cut_problems({**{name: options[name] for name in names}, **custom})
    for name, most in {"section": SECTION_LENGTH, "managed_by": LENGTHS["owner"]}.items():
        if len(options[name] or "") > most:
            yield Problem(name, None, f"has {len(options[name])} characters", f"write {most} at most")
    for group, right in (options["section_permissions"] or {}).items():
        if not str(group).isdecimal() or str(right) not in ("0", "1", "2", "3"):
            fix = "write the id of a group (phpIPAM > Administration > Groups) and 1 read, 2 write or 3 administrate"
            yield Problem(f"section_permissions.{group}", shown(right), "is no right of a group", fix)


def _new_section(options: Mapping[str, Any], sections: Mapping[str, Any]) -> None:
    """Refuse to make a section that is not to be made, or that phpIPAM would not make."""
    name, fix = options["section"], one_of(options["section"], sections)
    about = f"section = {shown(name)} is no section of this phpIPAM"
    if any(name.lower() == other.lower() for other in sections):
        raise RefusedError(f"{about}, and it takes no two that differ in case only. Fix: {fix}")
    if not options["create_section"]:
        raise RefusedError(f"{about}. Fix: {fix}, or create_section.")
    if len(name) < SHORTEST_NAME:
        raise RefusedError(
            f"{about}, and it makes none of so short a name. Fix: write {SHORTEST_NAME} letters at least."
        )


def _overlaps(subnets: Sequence[Subnet], network: Network) -> Iterator[Problem]:
    for other in overlapping(subnets, network):
        problem = f"overlaps {cidr(other)} ({other.get('description') or 'no description'}) of the section"
        fix = "declare that one (a mask is never changed), delete it in phpIPAM, or let section be another"
        yield Problem("subnet", str(network), problem, fix)


def _absent(
    book: Book, subnets: Sequence[Subnet], found: Subnet | None, options: Mapping[str, Any], *, check: bool
) -> dict[str, Any]:
    if found is None:
        return {"changed": False, "subnet_id": None, **_counts(Plan()), "diff": {"before": {}, "after": {}}}
    going = [found, *below(subnets, int(found["id"]))]
    rows = [row for each in going for row in book.rows(int(each["id"]))]
    if (rows or going[1:]) and not options["force_delete"]:
        raise RefusedError(
            f"subnet = {options['subnet']} has {len(rows)} addresses and {len(going) - 1} subnets, which would go too. "
            "Nothing was deleted. Fix: delete them first, or set force_delete."
        )
    if not check:
        book.delete_subnet(int(found["id"]))
    gone = Plan(delete=tuple(rows))
    before = {cidr(each): {"description": each.get("description") or ""} for each in going}
    diff = {"before": {**before, **difference(gone, book.tags if rows else {})["before"]}, "after": {}}
    return {"changed": True, "subnet_id": None, **_counts(gone), "diff": diff}


def _subnet_fields(found: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the subnet that differ from what is declared."""
    custom = {custom_name(name): value for name, value in (options["custom_fields"] or {}).items()}
    nested = found.get("custom_fields")
    current = {**found, **(nested if isinstance(nested, dict) else {})}
    given = {**({} if options["description"] is None else {"description": options["description"]}), **custom}
    return {name: value for name, value in given.items() if str(value or "") != str(current.get(name) or "")}


def _counts(changes: Plan) -> dict[str, Any]:
    return {
        "created": [one.ip for one in changes.create],
        "updated": [update.row.ip for update in changes.update],
        "deleted": [row.ip for row in changes.delete],
        "unchanged": changes.unchanged,
    }


def _difference(
    found: Mapping[str, Any] | None, fields: Mapping[str, Any], changes: Plan, book: Book, options: Mapping[str, Any]
) -> dict[str, Any]:
    diff = difference(changes, book.tags) if changes.changed else {"before": {}, "after": {}}
    if found is None or fields:
        old = {} if found is None else {name: found.get(name) or "" for name in fields}
        diff["before"] = {**({} if found is None else {options["subnet"]: old}), **diff["before"]}
        diff["after"] = {options["subnet"]: dict(fields), **diff["after"]}
    return diff


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    finish(module, run)


if __name__ == "__main__":
    main()
