"""The phpIPAM that our tests run against answers as the real ones did, in both versions, oddities included.

The recordings are our own, of phpIPAM 1.8.2 and 1.7.4 (PHP 8.2, MariaDB 10.11); of answers they keep what is compared,
of lists the first rows. `given` is what had been set or done there before. What was sent encrypted, to an app of the
security crypt, is not in them: nothing of ours does that.
"""

import http.client
import json
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificate import self_signed
from tests.support.phpipam import CODE, PhpIpam, serving

HERE = Path(__file__).parent
RECORDINGS: dict[str, dict[str, list[dict[str, Any]]]] = {
    version: json.loads((HERE / f"{version}.json").read_text()) for version in ("1.8.2", "1.7.4")
}
DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
# What is asked of one phpIPAM, one after the other, and what it had in its section by then.
RUNS: dict[tuple[str, ...], dict[str, Any]] = {
    ("auth",): {},
    ("https",): {"tokens": {"ansible": "eyx9wLfq-MFWVBoEhAEzRCc5"}},
    ("sections",): {},
    ("subnets",): {"sections": {3: {}}},
    ("addresses", "others"): {},
    ("locks",): {"sections": {3: {}}, "subnets": {7: "192.168.240.0/24"}},
    ("tags",): {"sections": {3: {}}, "subnets": {7: "192.168.240.0/24", 8: "172.29.0.0/16", 9: "10.66.0.0/24"}},
    ("permissions",): {"tokens": {"viewer": "29nl2k2w2-LDRVLU2LJu2-DA", "ansible": "q-UgkV6ACgh-8ffZLHIzoF90"}},
}


def ready(version: str, has: dict[str, Any]) -> PhpIpam:
    """As the recorded ones were before: two sections of its own, with six subnets, and two VLANs."""
    phpipam = PhpIpam(version)
    own = {"strictMode": "1", "permissions": '{"3":"1","2":"2"}'}
    for id_, name, kind in ((2, "IPv6", "IPv6 addresses"), (1, "Customers", "customers")):
        phpipam.sections[id_] = {"id": id_, "name": name, "description": f"Section for {kind}", **own}
    for id_ in (1, 2):
        about = {"name": f"IPv6 private {id_}", "description": f"IPv6 private {id_} subnets"}
        phpipam.vlans[id_] = {"vlanId": id_, "number": 2000 + id_, **about}
    phpipam.tokens.update(has.get("tokens", {}))
    for id_ in has.get("sections", ()):
        phpipam.sections[id_] = {"id": id_, "name": "Cariflex EMS", "description": None, **own, "permissions": None}
    for id_, cidr in has.get("subnets", {}).items():
        phpipam.next_id["subnets"] = id_
        subnet, mask = cidr.split("/")
        phpipam._create_subnet({"subnet": subnet, "mask": mask, "sectionId": 3})
    return phpipam


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """How the server is served, and how it is trusted."""
    certificate = self_signed(tmp_path_factory.mktemp("tls"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    return served, ssl.create_default_context(cafile=str(certificate))


@pytest.fixture
def phpipam(version: str, run: tuple[str, ...]) -> PhpIpam:
    return ready(version, RUNS[run])


@pytest.fixture
def connection(
    phpipam: PhpIpam, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> Iterator[http.client.HTTPSConnection]:
    """To the server, by HTTPS."""
    served, trusted = contexts
    with serving(phpipam, served) as url:
        connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=trusted)
        yield connection
        connection.close()


def answered(
    connection: http.client.HTTPSConnection, version: str, exchange: dict[str, Any]
) -> tuple[int, Any, str | None]:
    body = exchange["body"]
    raw = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {name.lower(): value for name, value in exchange["headers"].items()}
    if isinstance(body, str) and "content-type" not in headers:
        headers["content-type"] = "application/x-www-form-urlencoded"
    if version == "1.7.4" or body is not None:
        headers.setdefault("content-type", "application/json")
    connection.request(exchange["method"], exchange["path"], raw, headers)
    reply = connection.getresponse()
    text = reply.read()
    told = json.loads(text) if text else None
    kept = {name: told[name] for name in ("code", "success", "message", "id", "data") if name in told} if told else None
    return reply.status, kept, reply.headers["Location"]


def key(row: Any) -> Any:
    """What a row of a list is known by."""
    return next((row[name] for name in ("id", "vlanId", "tid") if name in row), None) if isinstance(row, dict) else row


def comparable(answer: Any, kept: Any) -> Any:
    """Of an answer what the recording keeps of it, without the database's wording, times, and how long a lock took."""
    if isinstance(answer, dict) and isinstance(kept, dict):
        told = {name: comparable(value, kept[name]) for name, value in answer.items() if name in kept}
        text = re.sub(r"SQLSTATE.*|[\d.]+ seconds", "…", str(told.get("message")))
        return {**told, "message": text} if "message" in told else told
    if isinstance(answer, list) and isinstance(kept, list):  # in no order that could be relied upon
        rows = {key(row): row for row in answer}
        return [comparable(rows.get(key(row)), row) for row in kept]
    return "…" if isinstance(answer, str) and re.fullmatch(DATE, answer) else answer


@pytest.mark.parametrize("version", RECORDINGS)
@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_every_recorded_answer_is_given_again(
    phpipam: PhpIpam, connection: http.client.HTTPSConnection, version: str, run: tuple[str, ...]
) -> None:
    different = []
    if run == ("tags",):
        phpipam.next_id["addresses"] = 830
    for exchange in [each for topic in run for each in RECORDINGS[version].get(topic, [])]:
        before = {name: getattr(phpipam, name) for name in exchange.get("given", {})}
        vars(phpipam).update(exchange.get("given", {}))
        kept = exchange["answer"]
        status, answer, location = answered(connection, version, exchange)
        vars(phpipam).update(before)
        expected = (exchange["status"], comparable(kept, kept), exchange.get("location"))
        told = (status, comparable(answer, kept), location if "location" in exchange else None)
        if told != expected:
            different.append((exchange["title"], expected, told))
    assert not different, "\n".join(map(str, different))


@pytest.mark.parametrize("recorded", RECORDINGS["1.8.2"]["parallel"], ids=lambda recorded: recorded["title"][-30:])
def test_parallel_changes_end_as_recorded(recorded: dict[str, Any]) -> None:
    """Without a lock the database's unique key is what keeps a second row out."""
    phpipam = ready("1.8.2", {"sections": {3: {}}, "subnets": {7: "192.168.240.0/24"}})
    phpipam.racing = "Disabled" in recorded["title"]
    headers = {"token": CODE, "content-type": "application/json"}

    def each(path: str, content: dict[str, Any]) -> list[tuple[int, str]]:
        raw = json.dumps(content).encode()
        bodies = [phpipam.answer("POST", f"/api/cariflexcode/addresses/{path}", headers, raw).body for _ in range(16)]
        assert all(isinstance(body, dict) for body in bodies)
        return [(body["code"], body["message"].split(":")[0]) for body in bodies if isinstance(body, dict)]

    same = Counter(each("", {"ip": "192.168.240.100", "subnetId": 7}))
    possible = {(code, message.split(":")[0]) for code, message, _ in recorded["same_ip"]}
    assert (same[201, "Address created"], sum(same.values())) == (1, 16)
    assert same.keys() <= possible
    assert set(each("first_free/7/", {})) <= {
        (code, message.split(":")[0]) for code, message, _ in recorded["first_free"]
    }
    assert len({row["ip"] for row in phpipam.addresses.values()}) == len(phpipam.addresses) == 17
