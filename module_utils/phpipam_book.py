"""Sections, subnets and addresses of a phpIPAM: found without doubt, and changed by a plan."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .phpipam_client import PhpIpamClient, PhpIpamError
from .phpipam_plan import (
    CUSTOM,
    Network,
    Plan,
    Row,
    Update,
    Wanted,
    creation,
    custom_texts,
    merged,
    patch,
    row_of,
    told,
)
from .phpipam_tree import Subnet, above, below, cidr, exactly, misplaced
from .problem import Problem, one_of

# What a creation is answered when the thing is there already, because somebody was faster, or because our own first try
# arrived and its answer did not. 500 is from the database, where phpIPAM does not see it itself.
_THERE = (409, 500)


@dataclass
class Written:
    """What has been written so far, for whoever has to know after a failure."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, list[str]]:
        """For the result."""
        return {"created": self.created, "updated": self.updated, "deleted": self.deleted}


class Book:
    """The address book of one phpIPAM."""

    def __init__(self, client: PhpIpamClient) -> None:
        self._client = client
        self._tags: dict[str, int] | None = None

    @property
    def tags(self) -> Mapping[str, int]:
        """Name -> id of the tags. Where several have one name, each has its id in it, as ``Docker/5``."""
        if self._tags is None:
            rows = self._client.rows("/addresses/tags/")
            having = Counter(str(row["type"]) for row in rows)
            self._tags = {
                str(row["type"]) if having[str(row["type"])] == 1 else f"{row['type']}/{row['id']}": int(row["id"])
                for row in rows
            }
        return self._tags

    # --- sections ---

    def sections(self) -> list[dict[str, Any]]:
        """All that the app may see."""
        return self._client.rows("/sections/")

    def section(self, name: str) -> dict[str, Any] | None:
        """A section. By the list: a lookup by name takes another case too, and a number for an id."""
        return next((row for row in self.sections() if row.get("name") == name), None)

    def create_section(self, name: str, permissions: Mapping[str, str] | None) -> int:
        """Make a section; without permissions for groups, administrators alone see it."""
        content = {"name": name, **({"permissions": json.dumps(permissions)} if permissions else {})}
        try:
            return int(self._client.change("POST", "/sections/", content)["id"])
        except PhpIpamError as error:
            there = self.section(name) if error.api_code in _THERE else None
            if there is None:
                raise
            return int(there["id"])

    # --- subnets ---

    def subnets(self, section_id: int) -> list[dict[str, Any]]:
        """Those of a section."""
        return self._client.rows(f"/sections/{section_id}/subnets/")

    def create_subnet(self, section_id: int, network: Network, fields: Mapping[str, Any]) -> int:
        """Make a subnet."""
        place = {"subnet": str(network.network_address), "mask": str(network.prefixlen), "sectionId": section_id}
        try:
            return int(self._client.change("POST", "/subnets/", {**place, **fields})["id"])
        except PhpIpamError as error:
            there = exactly(self.subnets(section_id), network) if error.api_code in _THERE else []
            if not there:
                raise
        if fields:
            self.update_subnet(int(there[0]["id"]), fields)
        return int(there[0]["id"])

    def update_subnet(self, subnet_id: int, fields: Mapping[str, Any]) -> None:
        """Change fields of a subnet, at least one."""
        self._client.change("PATCH", f"/subnets/{subnet_id}/", fields)

    def delete_subnet(self, subnet_id: int) -> None:
        """Delete a subnet, and with it, without asking, all that is in it."""
        self._delete(f"/subnets/{subnet_id}/")

    # --- addresses ---

    def rows(self, subnet_id: int) -> list[Row]:
        """The addresses of a subnet."""
        return [row_of(row) for row in self._client.rows(f"/subnets/{subnet_id}/addresses/")]

    def problems(self, changes: Plan, subnets: Sequence[Subnet], subnet_id: int | None) -> list[Problem]:
        """What speaks against changes in a subnet of the section; None: one that is still to be made."""
        return [
            *([] if subnet_id is None else self._doubled(changes.create, subnets, subnet_id)),
            *self.field_problems(custom_texts(changes), "addresses"),
        ]

    def _doubled(self, created: Sequence[Wanted], subnets: Sequence[Subnet], subnet_id: int) -> Iterator[Problem]:
        """New addresses that would be in two subnets: phpIPAM takes them all the same."""
        yield from misplaced(created, below(subnets, subnet_id))
        for around in above(subnets, subnet_id) if created else ():
            taken = {row.ip for row in self.rows(int(around["id"]))}
            for one in created:
                if one.ip in taken:
                    problem = f"is in {cidr(around)} already, a subnet around this one"
                    yield Problem("addresses", one.ip, problem, "delete that row")

    def field_problems(self, texts: Mapping[str, str], controller: str) -> list[Problem]:
        """Which custom fields this phpIPAM does not have, and which are too short for their longest text."""
        if not texts:
            return []
        found = self._client.ask(f"/{controller}/custom_fields/")
        known = found if isinstance(found, dict) else {}
        short = [name.removeprefix(CUSTOM) for name in known]
        problems = []
        for name, text in sorted(texts.items()):
            path = f"custom_fields.{name.removeprefix(CUSTOM)}"
            if name not in known:
                problems.append(Problem(path, None, f"is no custom field of {controller}", one_of(name, short)))
            elif (most := _most(known[name])) is not None and len(text) > most:
                problems.append(Problem(path, None, f"has {len(text)} characters", f"write {most} at most"))
        return problems

    def first_free(self, subnet_id: int, one: Wanted) -> str:
        """Make an address at the first that is free; returns it. Never tried twice: it would take two."""
        content = {name: value for name, value in creation(one, subnet_id).items() if name not in ("ip", "subnetId")}
        told_ = self._client.change("POST", f"/addresses/first_free/{subnet_id}/", content, tries=1)
        return str(told_["data"])

    def next_free(self, subnet_id: int) -> str | None:
        """The address that `first_free` would take now; None where all are taken."""
        found = self._client.ask(f"/subnets/{subnet_id}/first_free/")
        return found if isinstance(found, str) else None

    def write(self, subnet_id: int, changes: Plan, written: Written) -> None:
        """Make the changes, in their order; `written` keeps count.

        Raises:
            PhpIpamError: one was refused; those before it stand in `written`, and another run finishes.
        """
        for row in changes.delete:
            self._delete(f"/addresses/{row.id}/")
            written.deleted.append(row.ip)
        for update in changes.update:
            self._update(update, written)
        for one in changes.create:
            self._create(subnet_id, one, written)

    def _update(self, update: Update, written: Written) -> None:
        self._client.change("PATCH", f"/addresses/{update.row.id}/", patch(update))
        written.updated.append(update.row.ip)

    def _create(self, subnet_id: int, one: Wanted, written: Written) -> None:
        try:
            self._client.change("POST", "/addresses/", creation(one, subnet_id))
        except PhpIpamError as error:
            if error.api_code not in _THERE:
                raise
            row = next((row for row in self.rows(subnet_id) if row.ip == one.ip), None)
            if row is None:
                raise
            if (after := merged(row, one)) != row:
                self._update(Update(row, after), written)
        else:
            written.created.append(one.ip)

    def _delete(self, path: str) -> None:
        try:
            self._client.change("DELETE", path)
        except PhpIpamError as error:
            if error.api_code != 404:  # which says that it is gone
                raise


def _most(field_: Any) -> int | None:
    """How many characters a custom field takes; None where its type does not say."""
    kind = str(field_.get("type")) if isinstance(field_, dict) else ""
    told_ = re.fullmatch(r"(?:var)?char\((\d+)\)", kind)
    return None if told_ is None else int(told_[1])


def difference(changes: Plan, tags: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The changes as Ansible shows a diff: of an update, the fields that differ."""
    names = {id_: name for name, id_ in tags.items()}
    before = {row.ip: told(row, names) for row in changes.delete}
    after = {one.ip: told(merged(Row(0, one.ip), one), names) for one in changes.create}
    for update in changes.update:
        old, new = told(update.row, names), told(update.after, names)
        before[update.row.ip] = {name: old.get(name) for name in {**old, **new} if old.get(name) != new.get(name)}
        after[update.row.ip] = {name: new.get(name) for name in {**old, **new} if old.get(name) != new.get(name)}
    return {"before": before, "after": after}
