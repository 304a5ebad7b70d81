"""What the addresses of one phpIPAM subnet are to be, and the changes that lead there.

Pure: no calls in here. phpIPAM keeps an empty text and none at all alike; here both are the empty text.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from .problem import Problem, one_of, shown

MatchBy = Literal["ip", "hostname"]
Purge = Literal["none", "managed", "all"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CUSTOM = "custom_"
NESTED = "custom_fields"  # where apps with nested custom fields have them
USED = 2  # phpIPAM's tag for an address of which nothing else is said
MOST_OF_A_RANGE = 4096
# What phpIPAM's columns take; longer texts are an error of its database.
LENGTHS = {"description": 64, "hostname": 255, "owner": 128}
SECTION_LENGTH = 128
# The longest app code that it keeps.
CODE_LENGTH = 32
_MAC = re.compile(r"(?:[0-9a-f]{2}[:-]?){5}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """An address as it is declared; None: left as it is. `ip` and `mac` as phpIPAM writes them, `tag` by its id."""

    ip: str
    hostname: str | None = None
    description: str | None = None
    mac: str | None = None
    owner: str | None = None
    note: str | None = None
    tag: int | None = None
    is_gateway: bool | None = None
    exclude_ping: bool | None = None
    custom: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """An address as phpIPAM has it."""

    id: int
    ip: str
    hostname: str = ""
    description: str = ""
    mac: str = ""
    owner: str = ""
    note: str = ""
    tag: int = USED
    is_gateway: bool = False
    exclude_ping: bool = False
    custom: Mapping[str, str] = field(default_factory=dict)


FIELDS = ("hostname", "description", "mac", "owner", "note", "tag", "is_gateway", "exclude_ping")


@dataclass(frozen=True)
class Update:
    """A row and what is to differ of it afterwards."""

    row: Row
    after: Row


@dataclass(frozen=True)
class Plan:
    """Changes, to be made in this order: deletions, updates, creations."""

    delete: tuple[Row, ...] = ()
    update: tuple[Update, ...] = ()
    create: tuple[Wanted, ...] = ()
    unchanged: int = 0

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.delete or self.update or self.create)


def row_of(answer: Mapping[str, Any]) -> Row:
    """A row as the API tells it, by whichever version and app: numbers may be texts, custom fields may be nested."""
    nested = answer.get(NESTED)
    custom = {**answer, **nested} if isinstance(nested, dict) else answer
    return Row(
        id=int(answer["id"]),
        ip=canonical(str(answer.get("ip") or "")),
        **{name: str(answer.get(name) or "") for name in ("hostname", "description", "mac", "owner", "note")},
        tag=int(answer.get("tag") or USED),
        is_gateway=_flag(answer.get("is_gateway")),
        exclude_ping=_flag(answer.get("excludePing")),
        custom={
            name: str(value)
            for name, value in custom.items()
            if name.startswith(CUSTOM) and name != NESTED and value not in (None, "")
        },
    )


def _flag(value: object) -> bool:
    return str(value) in ("1", "True")


@lru_cache(maxsize=1 << 14)  # the same few thousand are looked at several times in one run
def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=1 << 14)
def canonical(text: str) -> str:
    """An address as phpIPAM keeps it; the text itself where it is none."""
    address = _address(text)
    return text if address is None else str(address)


def canonical_mac(text: str) -> str:
    """A hardware address as phpIPAM keeps it."""
    digits = re.sub(r"[^0-9a-f]", "", text.lower())
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


# --- what is declared ------------------------------------------------------------------------------------------------


def wanted(
    addresses: Iterable[Mapping[str, Any]], tags: Mapping[str, int], managed_by: str | None = None
) -> list[Wanted]:
    """Addresses as they are declared, ranges taken apart; `problems` has found nothing wrong with them."""
    found = []
    for entry in addresses:
        for ip in _ips(entry):
            texts = {name: _text(entry.get(name)) for name in ("hostname", "description", "note", "owner")}
            mac = entry.get("mac")
            found.append(
                Wanted(
                    ip=ip,
                    **{**texts, "owner": managed_by if managed_by and texts["owner"] is None else texts["owner"]},
                    mac=None if mac is None else canonical_mac(str(mac)),
                    tag=None if entry.get("tag") is None else tags[str(entry["tag"])],
                    is_gateway=entry.get("is_gateway"),
                    exclude_ping=entry.get("exclude_ping"),
                    custom={
                        custom_name(name): "" if value is None else str(value)
                        for name, value in (entry.get("custom_fields") or {}).items()
                    },
                )
            )
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def custom_name(name: str) -> str:
    """The column of a custom field."""
    return name if name.startswith(CUSTOM) else CUSTOM + name


def _ips(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("range") is None:
        yield canonical(str(entry["ip"]))
        return
    first, last = (ipaddress.ip_address(end.strip()) for end in str(entry["range"]).split("-"))
    for number in range(int(first), int(last) + 1):
        yield str(type(first)(number))


def problems(
    addresses: Sequence[Mapping[str, Any]],
    network: Network,
    *,
    tags: Iterable[str] | None,
    match_by: MatchBy = "ip",
    managed_by: str | None = None,
    path: str = "addresses",
) -> Iterator[Problem]:
    """What phpIPAM would refuse, or take for something else; all of it, before anything is written.

    Args:
        addresses: as they are declared.
        network: the subnet.
        tags: the names of the tags there are; None where they are not known yet.
        match_by: what an address is recognized by.
        managed_by: the marker of what is ours.
        path: of the option.
    """
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    gateway: str | None = None
    for index, entry in enumerate(addresses):
        where = f"{path}[{index}]"
        faults = list(_place_problems(entry, network, where))
        yield from faults
        yield from _field_problems(entry, where, tags, managed_by)
        if not faults:
            for ip in _ips(entry):
                if ip in found:
                    yield Problem(where, ip, f"is declared by {found[ip]} too", "declare every address once")
                found.setdefault(ip, where)
        if entry.get("is_gateway"):
            if gateway:
                yield Problem(f"{where}.is_gateway", "true", f"{gateway} is the gateway already", "choose one of them")
            gateway = gateway or where
        if match_by == "hostname":
            name = str(entry.get("hostname") or "")
            if not name:
                fix = "give a hostname, or match_by: ip"
                yield Problem(f"{where}.hostname", None, "is what the address is to be recognized by", fix)
            elif name in names:
                yield Problem(f"{where}.hostname", name, f"is that of {names[name]} too", "give every name once")
            elif entry.get("range") is not None:
                yield Problem(f"{where}.range", None, "cannot be recognized by one hostname", "use match_by: ip")
            names.setdefault(name, where)


def _place_problems(entry: Mapping[str, Any], network: Network, where: str) -> Iterator[Problem]:
    given = [name for name in ("ip", "range") if entry.get(name) is not None]
    if len(given) != 1:
        yield Problem(where, None, "needs an ip or a range", "give one of the two")
        return
    text = str(entry[given[0]])
    parts = text.split("-") if given == ["range"] else [text]
    ends = [end for part in parts if (end := _address(part.strip())) is not None]
    if len(ends) != len(parts):
        ends = []
    if len(ends) != (2 if given == ["range"] else 1):
        what, fix = (
            ("range", "write first-last") if given == ["range"] else ("address", "write one like 192.168.240.10")
        )
        yield Problem(f"{where}.{given[0]}", shown(text), f"is no {what}", fix)
        return
    for end in ends:
        if end.version != network.version or end not in network:
            yield Problem(f"{where}.{given[0]}", str(end), f"is outside {network}", "move it, or correct subnet")
        elif _is_reserved(end, network):
            what = "the network's own address" if end == network.network_address else "the broadcast address"
            yield Problem(f"{where}.{given[0]}", str(end), f"is {what} of {network}", "choose another one")
    if len(ends) == 2 and not 0 <= int(ends[1]) - int(ends[0]) < MOST_OF_A_RANGE:
        fix = f"write first-last, of {MOST_OF_A_RANGE} addresses at most"
        yield Problem(f"{where}.range", text, "ends before it begins, or is too long", fix)


def is_cut(text: object) -> bool:
    """Whether phpIPAM would take a text for HTML, and keep it without what it takes for a tag."""
    return re.search(r"<(?!\s)", str(text or "")) is not None


def cut_problems(texts: Mapping[str, object]) -> Iterator[Problem]:
    """The texts, by the path of their option, that phpIPAM would not keep as they are: every run would change them."""
    for path, text in texts.items():
        if is_cut(text):
            fix = "write it without <, or with a blank after it"
            yield Problem(path, shown(text), "has what phpIPAM takes for HTML, and leaves out", fix)


def _is_reserved(address: Address, network: Network) -> bool:
    if network.version == 6 or network.prefixlen >= 31:
        return False
    return address in (network.network_address, network.broadcast_address)


def _field_problems(
    entry: Mapping[str, Any], where: str, tags: Iterable[str] | None, managed_by: str | None
) -> Iterator[Problem]:
    for name, most in LENGTHS.items():
        length = len(str(entry.get(name) or ""))
        if length > most:
            yield Problem(f"{where}.{name}", None, f"has {length} characters", f"write {most} at most")
    texts = {f"{where}.{name}": entry.get(name) for name in ("hostname", "description", "owner", "note")}
    custom = {f"{where}.custom_fields.{name}": text for name, text in (entry.get("custom_fields") or {}).items()}
    yield from cut_problems({**texts, **custom})
    mac = entry.get("mac")
    if mac and not _MAC.fullmatch(str(mac)):
        yield Problem(f"{where}.mac", shown(mac), "is no hardware address", "write one such as 02:42:ac:1d:00:0a")
    tag = entry.get("tag")
    if tag is not None and tags is not None and str(tag) not in tags:
        yield Problem(f"{where}.tag", shown(tag), "is no tag of this phpIPAM", one_of(str(tag), tags))
    if managed_by and entry.get("owner") is not None and entry["owner"] != managed_by:
        fix = "leave owner out, or leave managed_by out"
        yield Problem(f"{where}.owner", shown(entry["owner"]), "is where managed_by marks what is ours", fix)


# --- what is to be done ----------------------------------------------------------------------------------------------


def plan(
    rows: Sequence[Row],
    desired: Sequence[Wanted],
    *,
    match_by: MatchBy = "ip",
    purge: Purge = "none",
    managed_by: str | None = None,
) -> Plan:
    """The changes that make the rows of a subnet as they are wanted; `conflicts` has found none.

    Args:
        rows: what there is.
        desired: what is declared.
        match_by: what an address is recognized by. By its hostname, it is replaced when it has moved.
        purge: which rows that are not declared are deleted: none, those that `managed_by` marks, or all.
        managed_by: the marker.
    """
    kept, delete, update, create = set(), [], [], []
    unchanged, there = 0, _Index(rows, match_by)
    for one in desired:
        row = there.match(one)
        if row is None:
            create.append(one)
        elif row.ip != one.ip:  # an address cannot be changed: another row takes its place, with all it had
            delete.append(row)
            kept.add(row.id)
            nameless = there.nameless.get(one.ip)
            if nameless is None:
                create.append(_moved(row, one))
            else:
                kept.add(nameless.id)
                update.append(Update(nameless, merged(nameless, _moved(row, one))))
        else:
            kept.add(row.id)
            after = merged(row, one)
            if after == row:
                unchanged += 1
            else:
                update.append(Update(row, after))
    stale = [row for row in rows if row.id not in kept and _is_purged(row, purge, managed_by)]
    return Plan((*delete, *stale), tuple(update), tuple(create), unchanged)


def conflicts(
    rows: Sequence[Row],
    desired: Sequence[Wanted],
    *,
    match_by: MatchBy = "ip",
    purge: Purge = "none",
    managed_by: str | None = None,
) -> Iterator[Problem]:
    """Why no plan can be made: more than one row could be meant, or something else has the address."""
    by_ip: dict[str, list[Row]] = defaultdict(list)
    by_hostname: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_ip[row.ip].append(row)
        by_hostname[row.hostname].append(row.ip)
    there = _Index(rows, match_by)
    matched = [(there.match(one), one) for one in desired]
    leaving = {row.id for row, one in matched if row is not None and row.ip != one.ip}
    names = {one.hostname for one in desired}
    for one in desired:
        if match_by == "hostname":
            same = by_hostname.get(one.hostname or "", [])
            if len(same) > 1:
                fix = "delete all but one of them"
                yield Problem("addresses", one.hostname, f"is the hostname of {', '.join(sorted(same))}", fix)
            for row in by_ip[one.ip]:
                ours = row.hostname in names or row.id in leaving or _is_purged(row, purge, managed_by)
                if row.hostname and row.hostname != one.hostname and not ours:
                    problem = f"is wanted for {one.hostname} and belongs to {row.hostname}"
                    yield Problem("addresses", one.ip, problem, "delete that row, or declare it, or purge")
        elif len(by_ip[one.ip]) > 1:
            yield Problem("addresses", one.ip, "is in the subnet more than once", "delete all but one of the rows")


def apply(rows: Iterable[Row], changes: Plan) -> list[Row]:
    """The rows after the changes, as phpIPAM makes them."""
    left = {row.id: row for row in rows}
    for row in changes.delete:
        del left[row.id]
    for update in changes.update:
        differing = {
            name: value
            for name in (*FIELDS, "custom")
            if (value := getattr(update.after, name)) != getattr(update.row, name)
        }
        if differing.get("is_gateway"):
            _one_gateway(left)
        left[update.row.id] = replace(left[update.row.id], **differing)
    for number, one in enumerate(changes.create, 1 + max((row.id for row in rows), default=0)):
        made = merged(Row(number, one.ip), one)
        if made.is_gateway:
            _one_gateway(left)
        left[number] = made
    return list(left.values())


def _one_gateway(rows: dict[int, Row]) -> None:
    """A new gateway takes the flag from the former one."""
    rows.update({id_: replace(row, is_gateway=False) for id_, row in rows.items() if row.is_gateway})


def merged(row: Row, one: Wanted) -> Row:
    """A row with what is declared of it."""
    given = {name: value for name in FIELDS if (value := getattr(one, name)) is not None}
    custom = {name: value for name, value in {**row.custom, **one.custom}.items() if value}
    return replace(row, **given, custom=custom)


def _moved(row: Row, one: Wanted) -> Wanted:
    after = merged(row, one)
    # with what is to be cleared: the row at the new address may have it
    custom = {**row.custom, **one.custom}
    fields = {name: getattr(after, name) for name in FIELDS}
    # to be the gateway belongs to the place: it stays behind, and another may be declared to be it
    return Wanted(one.ip, **{**fields, "is_gateway": one.is_gateway}, custom=custom)


class _Index:
    """The rows of a subnet by what they are recognized by; of several alike the first.

    Attributes:
        nameless: address -> the row of it that has no hostname: it belongs to nobody else.
    """

    def __init__(self, rows: Sequence[Row], match_by: MatchBy) -> None:
        self._match_by: MatchBy = match_by
        self._rows: dict[str, Row] = {}
        self.nameless: dict[str, Row] = {}
        for row in rows:
            self._rows.setdefault(getattr(row, match_by), row)
            if not row.hostname:
                self.nameless.setdefault(row.ip, row)

    def match(self, one: Wanted) -> Row | None:
        """The row that is meant."""
        return self._rows.get(getattr(one, self._match_by)) or self.nameless.get(one.ip)


def _is_purged(row: Row, purge: Purge, managed_by: str | None) -> bool:
    return purge == "all" or (purge == "managed" and bool(managed_by) and row.owner == managed_by)


def custom_texts(changes: Plan) -> dict[str, str]:
    """Custom field -> the longest text that the changes give it."""
    found: dict[str, str] = {}
    given = [
        *(one.custom for one in changes.create),
        *(dict(update.after.custom.items() - update.row.custom.items()) for update in changes.update),
    ]
    for custom in given:
        for name, text in custom.items():
            found[name] = max(found.get(name, ""), text, key=len)
    return found


# --- what is sent ----------------------------------------------------------------------------------------------------


def creation(one: Wanted, subnet_id: int) -> dict[str, Any]:
    """The body of a POST. The tag is always sent, as a number; flags as 0 and 1, because false is an error there."""
    row = merged(Row(0, one.ip), one)
    given = {name: value for name in FIELDS if (value := getattr(one, name)) is not None and name != "tag"}
    return {"ip": row.ip, "subnetId": subnet_id, "tag": row.tag, **_sent(given), **one.custom}


def patch(update: Update) -> dict[str, Any]:
    """The body of a PATCH: what differs, and always the tag, because phpIPAM resets it where it is not sent."""
    row, after = update.row, update.after
    given = {name: getattr(after, name) for name in FIELDS if getattr(after, name) != getattr(row, name)}
    custom = {
        name: after.custom.get(name, "")
        for name in {**row.custom, **after.custom}
        if row.custom.get(name, "") != after.custom.get(name, "")
    }
    return {**_sent(given), **custom, "tag": after.tag}


def _sent(fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {"exclude_ping": "excludePing"}
    return {names.get(name, name): int(value) if isinstance(value, bool) else value for name, value in fields.items()}


def told(row: Row | Wanted, tags: Mapping[int, str]) -> dict[str, Any]:
    """An address for people: what is not empty, the tag by its name."""
    shown_fields = {name: getattr(row, name) for name in FIELDS}
    shown_fields["tag"] = tags.get(row.tag, str(row.tag)) if row.tag is not None else None
    if row.custom:
        shown_fields["custom_fields"] = dict(row.custom)
    return {"ip": row.ip, **{name: value for name, value in shown_fields.items() if value not in (None, "", False)}}
