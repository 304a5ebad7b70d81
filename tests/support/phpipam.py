"""A phpIPAM to test with: it keeps state and answers as phpIPAM 1.8.2 or 1.7.4 does, with everything that is odd in it.

What it answers is held against recordings of both versions (tests/contract/phpipam). It knows what our modules use
(users, sections, subnets, addresses, tags, custom fields) and what others do to it (devices, VLANs).
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

CODE = "rwCode-0123456789abcdefghijABCDE"
READ_ONLY_CODE = "roCode-0123456789abcdefghijABCDE"
ADMIN_CODE = "rwaCode-0123456789abcdefghijABCD"
OFF_CODE = "offCode-0123456789abcdefghijABCD"
NEST_CODE = "nestCode-0123456789abcdefghijABC"
USER, PASSWORD = "ansible", "ansible-Secret1"
USERS = {USER: PASSWORD, "viewer": "viewer-Secret1"}
TOKEN = "5W0QMWi3iZuNhQOvSVfzTM7x"
MOST_BAD_LOGINS = 10
BLOCKED = "Your IP has been blocked for 5 minutes because of excessive login failures"


# What a new phpIPAM has of what our modules have no use for.
L2DOMAINS = [{"id": 1, "name": "default", "description": "default L2 domain", "sections": None}]
TOOLS = {
    "device_types": [{"tid": id_, "tname": name, "tdescription": name} for id_, name in ((1, "Switch"), (2, "Router"))],
    "nameservers": [
        {
            "id": 1,
            "name": "Google NS",
            "namesrv1": "8.8.8.8;8.8.4.4",
            "description": "Google public nameservers",
            "permissions": "1;2",
            "editDate": None,
        }
    ],
}


class App(NamedTuple):
    """An API app; one without a code wants a user's token."""

    code: str | None = None
    permission: str = "rw"
    security: str = "ssl"
    nested: bool = False


APPS = {
    "cariflexcode": App(CODE),
    "cariflexrwa": App(ADMIN_CODE, "rwa"),
    "cariflexnest": App(NEST_CODE, nested=True),
    "cariflexro": App(READ_ONLY_CODE, "r"),
    "cariflexoff": App(OFF_CODE, "off"),
    "cariflex": App(),
    "cariflexreader": App(permission="r"),
    "cariflexnone": App(security="none"),
    "cariflexcrypt": App(CODE, security="crypt"),
}
SUBNET_KEYS = {"subnet", "mask", "sectionId", "description", "masterSubnetId", "vlanId", "isFull", "isPool", "id"}
ADDRESS_KEYS = {
    *("ip", "ip_addr", "subnetId", "hostname", "description", "mac", "owner", "note", "tag", "is_gateway", "id"),
    *("excludePing", "PTRignore", "deviceId", "port", "location"),
}
LENGTHS = {"description": 64, "hostname": 255, "owner": 128, "port": 32}
SECTION_LENGTH = 128
CUSTOM_LENGTH = 64
TAGS = ("Offline", "Used", "Reserved", "DHCP")
_ROW = {
    "deviceId": None,
    "location": None,
    "port": None,
    "lastSeen": "1970-01-01 00:00:01",
    "PTRignore": 0,
    "PTR": 0,
    "firewallAddressObject": None,
    "editDate": None,
    "customer_id": None,
}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code or status


@dataclass
class Reply:
    """What goes out, `after` as many seconds: a body of None is an empty one; a status of 0 is none at all."""

    status: int
    body: dict[str, Any] | str | None
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0


@dataclass
class PhpIpam:
    """The state, and the answers.

    Attributes:
        version: 1.8.2 or 1.7.4.
        requests: method and path of each request.
        before: called with each request before it is answered; may raise `Refusal`, or give a reply of its own.
        off: the API is.
        plain: it is asked by plain http; else by https, also where tests leave that out.
        trusts_proxy: it believes X-Forwarded-Proto.
        allows_unsafe: apps without security are let in, and by plain http only.
        bad_logins: of the last minutes, from our address.
        tokens: user -> token: the same one for all that log in as this user.
        sessions: rows of php_sessions: each request without the cookie of a former one leaves another.
        stringify: numbers are told as texts; any request can ask for that by a header.
        translate: what the language of the server makes of a message.
        lock_wait: another writer holds the lock, and a change waits as long for it as this, and then fails.
        racing: changes do not wait for one another, and one comes between another's look and its write.
        lost: of how many changes the answer does not arrive.
    """

    version: str = "1.8.2"
    sections: dict[int, dict[str, Any]] = field(default_factory=dict)
    subnets: dict[int, dict[str, Any]] = field(default_factory=dict)
    addresses: dict[int, dict[str, Any]] = field(default_factory=dict)
    devices: dict[int, dict[str, Any]] = field(default_factory=dict)
    vlans: dict[int, dict[str, Any]] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=lambda: dict(enumerate(TAGS, 1)))
    custom_fields: dict[str, list[str]] = field(
        default_factory=lambda: {"addresses": ["custom_cariflex_role"], "subnets": ["custom_cariflex_env"]}
    )
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    before: Callable[[str, str], Reply | None] = lambda _method, _path: None
    off: bool = False
    plain: bool = False
    trusts_proxy: bool = False
    allows_unsafe: bool = False
    bad_logins: int = 0
    tokens: dict[str, str] = field(default_factory=dict)
    sessions: int = 0
    stringify: bool = False
    translate: Callable[[str], str] = str
    lock_wait: float | None = None
    racing: bool = False
    lost: int = 0
    next_id: dict[str, int] = field(
        default_factory=lambda: {"sections": 3, "subnets": 7, "addresses": 11, "devices": 1, "vlans": 3, "tokens": 0}
    )

    # --- the frame ---

    def answer(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> Reply:
        """Answer a request."""
        path, _, query = target.partition("?")
        self.requests.append((method, path))
        with contextlib.suppress(ValueError):
            self.bodies.append(json.loads(raw or b"null"))
        try:
            reply = self.before(method, path) or self._reply(method, path, query, headers, raw)
        except Refusal as refusal:
            text = self.translate(str(refusal))
            message = {"code": refusal.code, "success": False, "message": text, "time": 0.001}
            where = {"Location": "/api//user/"} if refusal.status == 401 else {}
            waited = self.lock_wait or 0 if refusal.status == 200 else 0
            reply = Reply(refusal.status, message, where, after=waited)
        if "phpipam=" not in headers.get("cookie", ""):
            self.sessions += 1
            cookie = f"phpipam={self.sessions:026}; path=/; SameSite=Lax;{' Secure;' * self._https(headers)} HttpOnly;"
            reply = replace(reply, headers={"Set-Cookie": cookie, **reply.headers})
        return reply

    def _reply(self, method: str, path: str, query: str, headers: dict[str, str], raw: bytes) -> Reply:
        if not path.startswith("/api/"):
            return Reply(302, "<html>", {"Location": "/login/"})
        name, *parts = [unquote(part) for part in path.removeprefix("/api/").split("/") if part]
        app = self._app(name, headers)
        if parts[:1] != ["user"] or method != "POST":
            self._admit(app, parts, method, headers)
        asked, method = method, "GET" if method == "HEAD" else method
        changes = method in ("POST", "PATCH", "PUT", "DELETE") and parts[:1] != ["user"]
        content = self._content(method, headers, raw)
        if changes and self.lock_wait is not None:
            raise Refusal(200, f"Cannot obtain lock for /lock after {self.lock_wait} seconds", 500)
        told = self._route(method, parts, content, query, headers, nested=app.nested)
        if changes and self.lost:
            self.lost -= 1
            return Reply(0, None)
        if isinstance(told, Reply):
            return told
        if asked == "HEAD":
            return Reply(told["code"], None)
        if "data" in told and (self.stringify or headers.get("api-stringify-results")):
            told["data"] = _as_texts(told["data"])
        where = {}
        if told["code"] == 201:
            kind = {"vlan": "vlans", "tools": "tools/ipTags"}.get(parts[0], parts[0])
            where = {"Location": f"/api/{name}/{kind}/{told['id']}/"}
        return Reply(told["code"], {**told, "time": 0.001}, where)

    def _app(self, name: str, headers: dict[str, str]) -> App:
        """The app, when it is on, and is asked in the way that it wants."""
        if self.off:
            raise Refusal(503, "API server disabled")
        if name not in APPS:
            raise Refusal(400, "Invalid application id")
        app = APPS[name]
        if app.permission == "off":
            raise Refusal(503, "Application disabled")
        if app.security == "crypt":
            raise Refusal(503, "Invalid enc_request")
        # one without security not even by https
        if not (self.allows_unsafe if app.security == "none" else self._https(headers)):
            raise Refusal(503, "SSL connection is required for API")
        if self.bad_logins > MOST_BAD_LOGINS:  # whatever the app, and the code too
            raise Refusal(500, BLOCKED)
        return app

    def _https(self, headers: dict[str, str]) -> bool:
        return not self.plain or (self.trusts_proxy and headers.get("x-forwarded-proto") == "https")

    def _admit(self, app: App, parts: list[str], method: str, headers: dict[str, str]) -> None:
        given = headers.get("token") or headers.get("phpipam-token")
        if app.code is not None and given in {other.code for other in APPS.values() if other.code} - {app.code}:
            raise Refusal(403, "Invalid token")
        if given not in ({app.code} if app.code else self.tokens.values()):
            status, text = (403, "Invalid token") if parts[:1] == ["user"] and given else (401, "Unauthorized")
            raise Refusal(status, text)
        if app.permission == "r" and method not in ("GET", "HEAD", "OPTIONS"):
            raise Refusal(401, "invalid permissions")

    def _content(self, method: str, headers: dict[str, str], raw: bytes) -> dict[str, Any]:
        kind = headers.get("content-type", "").partition(";")[0]
        if kind not in ("application/json", "application/x-www-form-urlencoded", "") or (
            not kind and self.version == "1.7.4" and method == "GET"
        ):
            raise Refusal(415, "Invalid Content type " + kind)
        if kind == "application/x-www-form-urlencoded":
            return dict(part.split("=", 1) for part in raw.decode().split("&") if part)
        try:
            found = json.loads(raw or b"{}")
        except ValueError:
            raise Refusal(400, "Invalid JSON: Syntax error") from None
        return {name: _tagless(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def _route(
        self,
        method: str,
        parts: list[str],
        content: dict[str, Any],
        query: str,
        headers: dict[str, str],
        *,
        nested: bool,
    ) -> Any:
        if method == "OPTIONS":
            rel = {"rel": "options", "method": "OPTIONS"}
            return _ok(data={"methods": [{"methods": [rel]}]} if parts else {"permissions": "Write"})
        if not parts:
            raise Refusal(400, "Request is not valid")
        controller, *rest = parts
        handler = getattr(self, f"_{controller}_", None)
        if handler is None:
            raise Refusal(400, "Invalid controller")
        if controller == "user":
            return self._user_(method, headers)
        return handler(method, rest, content, query, nested)

    # --- controllers ---

    def _user_(self, method: str, headers: dict[str, str]) -> dict[str, Any]:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if method != "POST":
            of = [user for user, token in self.tokens.items() if token == headers.get("token")]
            if not of:
                raise Refusal(409, "Authentication not needed")
            if method == "DELETE":  # ends the session of everybody who logged in as this user
                del self.tokens[of[0]]
                return _ok(data=["Token removed"])
            return _ok(data={"expires": "2027-01-01 00:00:00"})
        if scheme != "Basic":
            raise Refusal(400, "Please provide username and password")
        user, _, password = base64.b64decode(given).decode().partition(":")
        if USERS.get(user) != password:
            self.bad_logins += 1
            raise Refusal(500, "Invalid username or password")
        if user not in self.tokens:
            number = self._id("tokens")
            self.tokens[user] = f"{TOKEN[:-2]}{number:02}" if number else TOKEN
        return _ok(data={"token": self.tokens[user], "expires": "2027-01-01 00:00:00"})

    def _devices_(self, method: str, rest: list[str], content: dict[str, Any], query: str, nested: bool) -> Any:
        if method == "POST":
            if self.version == "1.7.4" and len(content) < 2:
                raise Refusal(400, "No parameters")
            if not content.get("hostname"):
                raise Refusal(400, "Hostname is mandatory")
            id_ = self._id("devices")
            self.devices[id_] = {"id": id_, "ip": None, "type": 0, "description": None, **content}
            return _created("Device created", id_)
        if method == "PATCH":  # also of a device that does not exist
            self.devices.get(int(rest[0]), {}).update(content)
            told = {"code": 200, "success": True, "message": "Device updated", "id": "0"}
            return Reply(302, told, {"Location": f"/api/cariflexcode/devices/{rest[0]}/"})
        if not rest:
            return _ok(data=_filtered(list(self.devices.values()), query, "No devices configured"))
        if rest[0] == "search":
            return _ok(data=_some([row for row in self.devices.values() if row["hostname"] == rest[1]], "No devices"))
        if rest[1:] == ["addresses"]:
            found = [row for row in self.addresses.values() if str(row["deviceId"]) == rest[0]]
            return _ok(data=_some([self._shown(row, nested) for row in found], "No addresses found"))
        if method == "DELETE":
            for row in self.addresses.values():
                row["deviceId"] = None if str(row["deviceId"]) == rest[0] else row["deviceId"]
            del self.devices[int(rest[0])]
            return _ok(message="Device deleted")
        return _ok(data=self.devices[int(rest[0])])

    def _vlan_(self, method: str, rest: list[str], content: dict[str, Any], _query: str, _nested: bool) -> Any:
        if method == "POST":
            id_ = self._id("vlans")
            self.vlans[id_] = {"vlanId": id_, "domainId": 1, "description": None, **content}
            return _created("Vlan created", id_)
        if not rest:
            return _ok(data=list(self.vlans.values()))
        if rest[0] == "search":
            return _ok(data=_some([row for row in self.vlans.values() if str(row["number"]) == rest[1]], "No vlans"))
        if rest[1:] == ["subnets"]:
            found = [row for row in self.subnets.values() if str(row["vlanId"]) == rest[0]]
            return _ok(data=_some(found, "No subnets found"))
        if method == "PATCH":
            if self.version == "1.7.4" and not content.get("name"):
                raise Refusal(400, "Vlan name is required")
            self.vlans[int(rest[0])].update(content)
            return _ok(message="Vlan updated")
        if method == "DELETE":
            del self.vlans[int(rest[0])]
            return _ok(message="Vlan deleted")
        return _ok(data=self.vlans[int(rest[0])])

    def _vlans_(self, *given: Any) -> Any:
        """The same under another name, which names the id otherwise."""
        told = self._vlan_(*given)
        if isinstance(told.get("data"), list):
            told["data"] = [{"id": row["vlanId"], **row} for row in told["data"]]
        return told

    def _tools_(self, method: str, rest: list[str], content: dict[str, Any], query: str, _nested: bool) -> Any:
        if rest[:1] == ["devices"]:
            return _ok(data=_some(list(self.devices.values()), "No objects found"))
        if rest[:1] != ["tags"]:
            return _ok(data=_some(TOOLS.get("".join(rest), []), "No objects found"))
        if method == "POST":  # also of a name that another has
            id_ = max(self.tags) + 1
            self.tags[id_] = content["type"]
            return {"code": 201, "success": True, "id": str(id_), "data": "ipTags object created"}
        if method == "GET":
            return self._tags(rest[1:], query)
        if int(rest[1]) not in self.tags:
            raise Refusal(400, "Invalid identifier")
        return _ok(message="ipTags object updated")

    def _l2domains_(self, *_: Any) -> Any:
        return _ok(data=L2DOMAINS)

    def _vrf_(self, *_: Any) -> Any:
        raise Refusal(404, "No vrfs configured")

    def _search_(self, _method: str, rest: list[str], _content: dict[str, Any], _query: str, nested: bool) -> Any:
        """Whatever has an address, with decimal ones."""
        ip = _canonical(rest[0])
        subnets = [
            {**row, "subnet": _decimal(row["subnet"])}
            for row in self.subnets.values()
            if ipaddress.ip_address(ip) in _network(row)
        ]
        rows = [row for row in self.addresses.values() if row["ip"] == ip]
        addresses = [{**self._shown(row, nested), "ip": _decimal(ip)} for row in rows]
        return _ok(data={"subnets": {"code": 200, "data": subnets}, "addresses": {"code": 200, "data": addresses}})

    def _sections_(self, method: str, rest: list[str], content: dict[str, Any], query: str, nested: bool) -> Any:
        if method == "GET" and not rest:
            return _ok(data=_filtered(list(self.sections.values()), query, "No sections available"))
        if method == "POST":
            unknown = content.keys() - {"name", "description", "permissions", "strictMode"}
            if unknown:
                raise Refusal(400, f"Invalid request key {sorted(unknown)[0]}")
            if len(content.get("name", "")) < 3:
                raise Refusal(400, "Name is mandatory or too short (mininum 3 characters)")
            if any(row["name"].lower() == content["name"].lower() for row in self.sections.values()):
                raise Refusal(500, f"Error: SQLSTATE[23000]: 1062 Duplicate entry '{content['name']}'")
            _fits(content, {"name": SECTION_LENGTH})
            id_ = self._id("sections")
            self.sections[id_] = {"id": id_, "description": None, "permissions": None, "strictMode": "1", **content}
            return _created("Section created", id_)
        section = self._section(rest[0]) if rest else self._section(str(content.pop("id", "")))
        if rest[1:] == ["subnets"]:
            found = [row for row in self.subnets.values() if row["sectionId"] == section["id"]]
            return _ok(data=_some([self._shown(row, nested, "subnets") for row in found], "No subnets found"))
        if method == "PATCH":
            if not content:
                raise Refusal(500, "Error: No values to update")
            section.update(content)
            return _ok()
        if method == "DELETE":
            for id_ in [id_ for id_, row in self.subnets.items() if row["sectionId"] == section["id"]]:
                self._drop_subnet(id_)
            del self.sections[section["id"]]
            return _ok()
        return _ok(data=section)

    def _section(self, which: str) -> dict[str, Any]:
        if which.isdecimal():  # a name that is a number cannot be asked for
            if int(which) not in self.sections:
                raise Refusal(404, "Section does not exist")
            return self.sections[int(which)]
        found = [row for row in self.sections.values() if row["name"].lower() == which.lower()]  # whatever the case
        if not found:
            raise Refusal(404, "Not Found")
        return found[0]

    def _subnets_(self, method: str, rest: list[str], content: dict[str, Any], query: str, nested: bool) -> Any:
        if rest[:1] == ["custom_fields"]:
            return self._fields("subnets")
        if method == "GET" and rest[:1] in (["cidr"], ["search"]):
            place = [_canonical(rest[1]), *rest[2:3]]
            found = [row for row in self.subnets.values() if [row["subnet"], row["mask"]] == place]
            found = [{**row, "ip": row["subnet"]} for row in found] if query else found
            return _ok(data=_filtered(found, query, "No subnets found"))
        if rest[:1] == ["overlapping"]:
            wanted = ipaddress.ip_network("/".join(rest[1:]))
            found = [row for row in self.subnets.values() if _network(row).overlaps(wanted)]
            return _ok(data=_some(found, "No subnets found"))
        if method == "POST":
            return self._create_subnet(content)
        if not rest:
            return _ok(data=_some(list(self.subnets.values()), "No subnets configured"))
        subnet = self._subnet(rest[0], 400 if method == "GET" and len(rest) == 1 else 404)
        if rest[1:] == ["addresses"]:
            found = [self._shown(row, nested) for row in self._within(subnet["id"])]
            return _ok(data=_filtered(found, query, "No addresses found"))
        if len(rest) == 3 and rest[1] == "addresses":
            found = [self._shown(row, nested) for row in self._within(subnet["id"]) if row["ip"] == _canonical(rest[2])]
            return _ok(data=_some(found, "No addresses found"))
        if rest[1:] == ["first_free"]:
            return _ok(data=self._free(subnet))
        if rest[1:] == ["slaves"]:
            found = [row for row in self.subnets.values() if row["masterSubnetId"] == subnet["id"]]
            return _ok(data=_some(found, "No subnets found"))
        if rest[1:] == ["resize"]:  # the network address follows the mask, and does not come back
            wide = ipaddress.ip_network(f"{subnet['subnet']}/{content['mask']}", strict=False)
            subnet.update(subnet=str(wide.network_address), mask=str(content["mask"]))
            return _ok(message="Subnet resized")
        if rest[1:] == ["usage"]:
            used, most = len(self._within(subnet["id"])) + 2, _network(subnet).num_addresses  # with its two ends
            return _ok(data={"used": str(used), "freehosts": str(most - used), "maxhosts": str(most)})
        if rest[1:] == ["truncate"] and method == "DELETE":
            self.addresses = {id_: row for id_, row in self.addresses.items() if row["subnetId"] != subnet["id"]}
            return _ok(message="Subnet truncated")
        if rest[1:]:
            raise Refusal(400, "Invalid request")
        if method == "PATCH":
            return self._patch_subnet(subnet, content)
        if method == "DELETE":
            self._drop_subnet(subnet["id"])
            return _ok(message="Subnet deleted")
        return _ok(data=self._shown(subnet, nested, "subnets", single=True))

    def _create_subnet(self, content: dict[str, Any]) -> Any:
        self._known(content, SUBNET_KEYS, "subnets")
        mask = str(content.get("mask", ""))
        if not mask.isdecimal():
            raise Refusal(400, "Invalid netmask")
        network = ipaddress.ip_network(f"{content['subnet']}/{mask}", strict=False)
        if str(network.network_address) != content["subnet"]:
            raise Refusal(400, f"IP address cannot be subnet! (Consider using {network.network_address})")
        section = str(content.get("sectionId", ""))
        if not section.isdecimal():
            raise Refusal(400, f"Invalid Section ({section})")
        if int(section) not in self.sections:
            raise Refusal(400, f"Section id ({section}) does not exist")
        if not int(content.get("masterSubnetId") or 0) and self.sections[int(section)].get("strictMode") == "1":
            for row in self.subnets.values():
                other = _network(row)
                same = row["sectionId"] == int(section) and other.version == network.version
                if same and not row["masterSubnetId"] and network.overlaps(other):
                    about = f"{other} ({row['description']}) in section {self.sections[int(section)]['name']}"
                    raise Refusal(409, f"Subnet {network} overlaps with {about}")
        _fits(content, dict.fromkeys(self.custom_fields["subnets"], CUSTOM_LENGTH))
        id_ = self._id("subnets")
        fields = dict.fromkeys(self.custom_fields["subnets"])
        rights = {"permissions": self.sections[int(section)].get("permissions")}
        plain = {"id": id_, "description": None, "vlanId": None, "isFull": 0, "isPool": 0, "tag": 2}
        row = {**plain, **rights, **fields, **content}
        place = {"mask": mask, "sectionId": int(section), "masterSubnetId": int(content.get("masterSubnetId") or 0)}
        self.subnets[id_] = {**row, **place}  # mask stays a text
        return _created("Subnet created", id_, data=str(network))

    def _patch_subnet(self, subnet: dict[str, Any], content: dict[str, Any]) -> Any:
        self._known(content, SUBNET_KEYS, "subnets")
        if not content:
            raise Refusal(500, "Error: No values to update")
        if "mask" in content:
            raise Refusal(400, "To change mask use resize method")
        if "subnet" in content:
            raise Refusal(400, "Subnet cannot be changed")
        if content.get("vlanId") is not None and int(content["vlanId"]) not in self.vlans:  # 0 is none either
            raise Refusal(404, "Vlan does not exist")
        _fits(content, dict.fromkeys(self.custom_fields["subnets"], CUSTOM_LENGTH))
        subnet.update({name: None if value in ("", None, False) else value for name, value in content.items()})
        return _ok(message="Subnet updated")

    def _subnet(self, which: str, status: int) -> dict[str, Any]:
        if not which.isdecimal():
            raise Refusal(404, "Invalid Id")
        if int(which) not in self.subnets:
            raise Refusal(status, f"Invalid subnet Id ({which})")
        return self.subnets[int(which)]

    def _drop_subnet(self, id_: int) -> None:
        """All that is in it goes with it, without asking."""
        for child in [child for child, row in self.subnets.items() if row["masterSubnetId"] == id_]:
            self._drop_subnet(child)
        for address in [address for address, row in self.addresses.items() if row["subnetId"] == id_]:
            del self.addresses[address]
        del self.subnets[id_]

    def _addresses_(self, method: str, rest: list[str], content: dict[str, Any], query: str, nested: bool) -> Any:
        if rest[:1] == ["custom_fields"]:
            return self._fields("addresses")
        if rest[:1] == ["tags"]:
            return self._tags(rest[1:], query)
        if rest[:1] in (["search"], ["search_hostname"], ["search_hostbase"], ["search_mac"]):
            return _ok(data=self._searched(*rest))
        if rest[:1] == ["first_free"]:
            subnet = self._subnet(rest[1], 404)
            if method == "GET":
                return _ok(data=self._free(subnet))
            ip = self._free(subnet)
            return {**self._create_address({**content, "ip": ip, "subnetId": subnet["id"]}), "data": ip}
        if method == "POST":
            return self._create_address(content)
        if len(rest) == 2 and not rest[0].isdecimal():
            return self._by_place(method, rest)
        which = rest[0] if rest else str(content.pop("id", ""))
        if not which.isdecimal() or int(which) not in self.addresses:
            raise Refusal(404, "Invalid Id" if method == "GET" else "Address does not exist")
        row = self.addresses[int(which)]
        if rest[1:] == ["changelog"]:
            raise Refusal(404, "No changelogs found")
        if method == "GET":
            return _ok(data=self._shown(row, nested, single=True))
        if method == "DELETE":
            del self.addresses[row["id"]]
            return _ok(message="Address deleted")
        return self._patch_address(method, row, content, nested)

    def _by_place(self, method: str, rest: list[str]) -> Any:
        found = [row for row in self._within(int(rest[1])) if row["ip"] == _canonical(rest[0])]
        if method == "DELETE":
            if not found:
                return Reply(500, None)  # a TypeError in PHP
            del self.addresses[found[0]["id"]]
            return _ok(message="Address deleted")
        if self.version == "1.8.2" or not found:
            raise Refusal(404, "No addresses found")
        raw = {"ip_addr": "ip", "state": "tag", "switch": "deviceId"}  # as the database names them
        row = {name: value for name, value in found[0].items() if name not in ("tag", "deviceId")}
        return _ok(data={**row, **{name: found[0][ours] for name, ours in raw.items()}, "ip_addr": _decimal(row["ip"])})

    def _searched(self, how: str, what: str) -> list[dict[str, Any]]:
        """Rows of all subnets; where there are several, the address of each but the first is a decimal number."""
        if how == "search":
            if _canonical(what) == what and ":" not in what and not what.replace(".", "").isdecimal():
                raise Refusal(400, "Invalid address")
            return _some([row for row in self.addresses.values() if row["ip"] == _canonical(what)], "Address not found")
        fits: dict[str, Callable[[dict[str, Any]], bool]] = {
            "search_hostname": lambda row: row["hostname"] == what,
            "search_hostbase": lambda row: str(row["hostname"] or "").startswith(what),
            "search_mac": lambda row: row["mac"] == _mac(what),
        }
        found = _some([row for row in self.addresses.values() if fits[how](row)], "Hostname not found")
        return [found[0], *({**row, "ip": _decimal(row["ip"])} for row in found[1:])]

    def _create_address(self, content: dict[str, Any]) -> Any:
        self._known(content, ADDRESS_KEYS, "addresses")
        if not str(content.get("subnetId", "")).isdecimal():
            raise Refusal(400, "SubnetId must be numeric")
        if int(content["subnetId"]) not in self.subnets:
            raise Refusal(404, "Invalid subnet Id")
        subnet = self.subnets[int(content["subnetId"])]
        network = _network(subnet)
        text = str(content.get("ip") or content.get("ip_addr") or "0.0.0.0")  # noqa: S104 - as phpIPAM says
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            ip = ipaddress.ip_address("0.0.0.0")  # noqa: S104 - as phpIPAM says
        ends = (network.network_address, network.broadcast_address)
        if ip not in network or (network.version == 4 and network.prefixlen < 31 and ip in ends):
            raise Refusal(500, f"{ip} is not a valid address for subnet {network}")
        self._checked(content)
        if any(row["ip"] == str(ip) for row in self._within(subnet["id"])):
            if self.racing:  # nobody saw the other's, and the database keeps the second one out
                entry = f"'{int(ip)}-{subnet['id']}' for key 'sid_ip_unique'"
                raise Refusal(
                    500, f"Error: SQLSTATE[23000]: Integrity constraint violation: 1062 Duplicate entry {entry}"
                )
            raise Refusal(409, "IP address already exists")
        id_ = self._id("addresses")
        texts = dict.fromkeys(("description", "hostname", "mac", "owner", "note"))
        custom = dict.fromkeys(self.custom_fields["addresses"])
        place = {"id": id_, "subnetId": subnet["id"], "ip": str(ip)}
        self.addresses[id_] = {**place, "is_gateway": 0, **texts, "tag": 2, **_ROW, "excludePing": 0, **custom}
        self._set(self.addresses[id_], {k: v for k, v in content.items() if k not in ("ip", "ip_addr", "subnetId")})
        return _created("Address created", id_)

    def _patch_address(self, method: str, row: dict[str, Any], content: dict[str, Any], nested: bool) -> Any:
        if nested:
            content = content | content.pop("custom_fields", {})
        self._known(content, ADDRESS_KEYS, "addresses")
        if "ip" in content:
            raise Refusal(400, "IP address cannot be changed")
        if "subnetId" in content:  # also the same one
            raise Refusal(400, "Subnet cannot be changed")
        self._checked(content)
        if method == "PUT" and self.version == "1.7.4":  # sets nothing of what is sent
            content = {}
        self._set(row, {"tag": 2, **content})  # what is not sent becomes Used
        row["editDate"] = "2026-11-26 12:00:00"
        return _ok(message="Address updated")

    def _checked(self, content: dict[str, Any]) -> None:
        tag = content.get("tag", 2)
        if not str(tag).isdecimal():
            raise Refusal(400, "Invalid state")
        if int(tag) not in self.tags:
            raise Refusal(400, "Tag does not exist")
        if content.get("deviceId") and int(content["deviceId"]) not in self.devices:
            raise Refusal(400, "Device does not exist")
        mac = content.get("mac")
        if mac and not re.fullmatch(r"[0-9a-f]{12}", re.sub(r"[.:-]", "", mac.lower())):
            raise Refusal(400, "Invalid MAC address")
        for name in ("is_gateway", "excludePing"):
            if content.get(name, 0) in (None, "") or content.get(name, 0) is False:
                raise Refusal(500, f"Error: SQLSTATE[23000]: 1048 Column '{name}' cannot be null")
        _fits(content, LENGTHS | dict.fromkeys(self.custom_fields["addresses"], CUSTOM_LENGTH))

    def _set(self, row: dict[str, Any], content: dict[str, Any]) -> None:
        if int(content.get("is_gateway") or 0):
            for other in self._within(row["subnetId"]):
                other["is_gateway"] = 0
        for name, value in content.items():
            if name in ("is_gateway", "excludePing", "PTRignore", "tag") or (name == "deviceId" and value):
                row[name] = int(value)
            elif name == "mac" and value:
                row[name] = _mac(value)
            else:
                row[name] = None if value in ("", None, False) else value

    def _free(self, subnet: dict[str, Any]) -> str:
        if any(row["masterSubnetId"] == subnet["id"] for row in self.subnets.values()):
            raise Refusal(409, "Subnet contains subnets")
        if int(subnet["isFull"] or 0):
            raise Refusal(404, "No free addresses found (subnet is full)")
        taken = {row["ip"] for row in self._within(subnet["id"])}
        free = next((str(ip) for ip in _network(subnet).hosts() if str(ip) not in taken), None)
        if free is None:
            raise Refusal(404, "No free addresses found")
        return free

    def _tags(self, rest: list[str], query: str) -> Any:
        if not rest:
            found = [{"id": id_, "type": name, "showtag": 1} for id_, name in self.tags.items()]
            return _ok(data=_filtered(found, query, "No tags"))
        if rest[1:] == ["addresses"]:  # all with decimal addresses
            found = [
                {**row, "ip": _decimal(row["ip"])} for row in self.addresses.values() if row["tag"] == int(rest[0])
            ]
            return _ok(data=_some(found, "No addresses found"))
        if int(rest[0]) not in self.tags:
            raise Refusal(404, "Address tag does not exist")
        return _ok(data={"id": int(rest[0]), "type": self.tags[int(rest[0])], "showtag": 1})

    def _fields(self, controller: str) -> Any:
        return _ok(
            data={name: {"name": name, "type": f"varchar({CUSTOM_LENGTH})"} for name in self.custom_fields[controller]}
        )

    # --- state ---

    def _known(self, content: dict[str, Any], keys: set[str], controller: str) -> None:
        for name in content:
            if name not in keys and name not in self.custom_fields[controller]:
                raise Refusal(400, f"Invalid request key {name}")

    def _id(self, kind: str) -> int:
        self.next_id[kind] += 1
        return self.next_id[kind] - 1

    def _within(self, subnet_id: int) -> list[dict[str, Any]]:
        found = [row for row in self.addresses.values() if row["subnetId"] == subnet_id]
        return sorted(found, key=lambda row: int(ipaddress.ip_address(row["ip"])))

    def _shown(
        self, row: dict[str, Any], nested: bool, kind: str = "addresses", *, single: bool = False
    ) -> dict[str, Any]:
        """With nested custom fields: in a list only those that have a value are nested."""
        if not nested:
            return row
        custom = {name: row[name] for name in self.custom_fields[kind] if single or row[name] is not None}
        flat = {name: value for name, value in row.items() if name not in custom}
        return {**flat, "custom_fields": custom} if custom else flat


def _ok(**more: Any) -> dict[str, Any]:
    return {"code": 200, "success": True, **more}


def _created(message: str, id_: int, **more: Any) -> dict[str, Any]:
    return {"code": 201, "success": True, "message": message, "id": str(id_), **more}  # the id is a text here


def _some(found: list[Any], message: str) -> list[Any]:
    if not found:
        raise Refusal(404, message)
    return found


def _filtered(found: list[dict[str, Any]], query: str, message: str) -> list[dict[str, Any]]:
    _some(found, message)
    given = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
    if "filter_by" not in given:
        return found
    if given["filter_by"] not in found[0]:
        raise Refusal(400, "Invalid filter_by")
    value = unquote(given.get("filter_value", ""))
    return _some([row for row in found if str(row.get(given["filter_by"])) == value], "No results (filter applied)")


def _fits(content: dict[str, Any], lengths: dict[str, int]) -> None:
    for name, most in lengths.items():
        if len(str(content.get(name) or "")) > most:
            raise Refusal(500, f"Error: SQLSTATE[22001]: 1406 Data too long for column '{name}' at row 1")


def _network(row: dict[str, Any]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(f"{row['subnet']}/{row['mask']}")


def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _decimal(ip: str) -> str:
    return str(int(ipaddress.ip_address(ip)))


def _mac(text: str) -> str:
    digits = re.sub(r"[.:-]", "", text.lower())
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _tagless(value: Any) -> Any:
    """As PHP's strip_tags leaves a text."""
    return re.sub(r"<(?!\s)[^>]*>?", "", value) if isinstance(value, str) else value


def _as_texts(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _as_texts(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_as_texts(value) for value in data]
    return str(data) if isinstance(data, int) else data


class Answering(Protocol):
    """What can be served."""

    def answer(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> Reply:
        """Answer a request."""


@contextlib.contextmanager
def serving(phpipam: Answering, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve it on this machine, over HTTPS if there is a context; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body at once: the client's kernel would wait before it asks for more

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                reply = phpipam.answer(self.command, self.path, headers, raw)
            threading.Event().wait(reply.after)  # tests leave out time.sleep
            if reply.status == 0:
                self.close_connection = True
                return
            text = (
                b""
                if reply.body is None
                else (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            )
            with contextlib.suppress(OSError):  # the client may have given up
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(text)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests read what was received, not a log."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that refuses our certificate is what some tests are about."""

    lock = threading.Lock()
    server = Quiet(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http{'' if context is None else 's'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
