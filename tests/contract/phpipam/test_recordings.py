"""The phpIPAM that our tests run against answers as the real ones did, in both versions, oddities included.

The recordings are our own, of phpIPAM 1.8.2 and 1.7.4 (PHP 8.2, MariaDB 10.11); of answers they keep what is compared.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.phpipam import PhpIpam

HERE = Path(__file__).parent
RECORDINGS: dict[str, dict[str, list[dict[str, Any]]]] = {
    version: json.loads((HERE / f"{version}.json").read_text()) for version in ("1.8.2", "1.7.4")
}
# What our modules never ask for; the rest is compared to the last word.
UNASKED = (
    "usage",
    "overlapping",
    "OPTIONS",
    "options",
    "HEAD",
    "nosuch",
    "tools/",
    "/tags/3/addresses",
    "/user/all",
    "/search",
)


def asked(exchange: dict[str, Any]) -> bool:
    return not any(part in exchange["path"] or part == exchange["method"] for part in UNASKED)


def ready(version: str) -> PhpIpam:
    """As the recorded ones were before: two sections of its own, with six subnets."""
    phpipam = PhpIpam(version)
    for id_, name in ((1, "Customers"), (2, "IPv6")):
        phpipam.sections[id_] = {"id": id_, "name": name, "strictMode": "1"}
    return phpipam


def answered(phpipam: PhpIpam, exchange: dict[str, Any]) -> tuple[int, Any]:
    body = exchange["body"]
    raw = b"" if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {name.lower(): value for name, value in exchange["headers"].items()}
    if isinstance(body, str) and "content-type" not in headers:
        headers["content-type"] = "application/x-www-form-urlencoded"
    if phpipam.version == "1.7.4" or body is not None:
        headers.setdefault("content-type", "application/json")
    reply = phpipam.answer(exchange["method"], exchange["path"], headers, raw)
    if not isinstance(reply.body, dict):
        return reply.status, None
    kept: dict[str, Any] = {k: v for k, v in reply.body.items() if k in ("code", "success", "message", "id")}
    if isinstance(reply.body.get("data"), str):
        kept["data"] = reply.body["data"]
    return reply.status, kept


def comparable(answer: Any) -> Any:
    """Without what is the database's own wording."""
    if isinstance(answer, dict) and "SQLSTATE" in str(answer.get("message")):
        return {**answer, "message": "SQLSTATE"}
    return answer


@pytest.mark.parametrize("version", RECORDINGS)
@pytest.mark.parametrize("topic", ["auth", "sections", "subnets", "addresses"])
def test_every_recorded_answer_is_given_again(version: str, topic: str) -> None:
    phpipam, different = ready(version), []
    if topic == "subnets":
        phpipam.sections[3] = {"id": 3, "name": "Cariflex EMS", "strictMode": "1"}
    for exchange in filter(asked, RECORDINGS[version].get(topic, [])):
        status, answer = answered(phpipam, exchange)
        if (status, comparable(answer)) != (exchange["status"], comparable(exchange["answer"])):
            different.append((exchange["title"], (exchange["status"], exchange["answer"]), (status, answer)))
    assert not different, "\n".join(map(str, different))
