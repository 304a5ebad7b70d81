"""Polls that are known are answered without parsing: exactly as the long way answers them, and never without asking."""

from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openleadr.messaging import create_message
from openleadr.service import PollService

from cariflex.vtn.polls import LONGEST_KNOWN_BYTES, MOST_FORMS, POLLS
from tests.unit.services.openadr_support import OTHER_VEN, VEN, RunningVtn, next_hour, price_body, running_vtn

BODY = create_message("oadrPoll", ven_id=VEN)
REGISTRATION = {
    "request_id": "r",
    "http_pull_model": True,
    "xml_signature": False,
    "report_only": False,
    "profile_name": "2.0b",
    "transport_name": "simpleHttp",
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The VENs whose polls took the long way."""
    seen: list[Any] = []
    real = PollService.poll

    async def poll(self: PollService, payload: dict[str, Any]) -> Any:
        seen.append(payload["ven_id"])
        return await real(self, payload)

    poll.__message_type__ = "oadrPoll"  # type: ignore[attr-defined]
    monkeypatch.setattr(PollService, "poll", poll)
    return seen


async def register(vtn: RunningVtn, ven_id: str = VEN) -> None:
    body = create_message("oadrCreatePartyRegistration", ven_name=ven_id, **REGISTRATION)
    assert (await vtn.send("EiRegisterParty", body))[0] == 200


async def long_way(body: str | bytes) -> tuple[int, str]:
    """The answer of a VTN that has never seen a poll."""
    async with running_vtn() as vtn:
        await register(vtn)
        return await vtn.send("OadrPoll", body)


async def test_a_known_poll_is_answered_byte_for_byte_alike_and_counted(seen: list[Any]) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        before = POLLS.of(VEN)
        answers = [await vtn.send("OadrPoll", BODY) for _ in range(3)]
        assert seen == [VEN]
        assert answers == [answers[0]] * 3
        assert answers[0][0] == 200
        assert VEN in answers[0][1]
        assert POLLS.of(VEN) == before + 3
        seen_at = vtn.board.last_poll[VEN]
        await vtn.send("OadrPoll", BODY)
        assert vtn.board.last_poll[VEN] > seen_at
    assert await long_way(BODY) == answers[0]


async def test_headers_are_those_of_the_long_way() -> None:
    async with running_vtn() as vtn, aiohttp.ClientSession() as http:
        await register(vtn)
        headers = {"Content-Type": "application/xml"}
        answers = []
        for _ in range(2):
            async with http.post(f"{vtn.url}/OadrPoll", data=BODY, headers=headers) as answer:
                answers.append({name: value for name, value in answer.headers.items() if name != "Date"})
        assert answers[0] == answers[1]


async def test_an_event_reaches_a_known_ven_and_the_empty_answer_returns() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        _, empty = await vtn.send("OadrPoll", BODY)
        await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour()))
        for _ in range(2):
            assert "oadrDistributeEvent" in (await vtn.send("OadrPoll", BODY))[1]
        ok = {"response_code": 200, "response_description": "OK", "request_id": "r"}
        opt = ok | {"event_id": f"price-1:{VEN}", "modification_number": 0, "opt_type": "optIn"}
        await vtn.send("EiEvent", create_message("oadrCreatedEvent", ven_id=VEN, response=ok, event_responses=[opt]))
        assert (await vtn.send("OadrPoll", BODY))[1] == empty
        await vtn.api("DELETE", "/api/v1/events/price-1")
        assert "cancelled" in (await vtn.send("OadrPoll", BODY))[1]


async def test_a_ven_that_is_not_registered_any_more_is_asked_to() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await vtn.send("OadrPoll", BODY)
        vtn.board.deregistered(VEN)
        assert "oadrRequestReregistration" in (await vtn.send("OadrPoll", BODY))[1]


async def test_a_known_poll_at_another_service_or_type_is_refused_as_ever() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await vtn.send("OadrPoll", BODY)
        assert "459" in (await vtn.send("EiEvent", BODY))[1]
        assert (await vtn.send("OadrPoll", BODY, "text/plain"))[0] == 415


async def test_a_form_is_known_for_every_ven_once_one_has_come_in_it(seen: list[Any]) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await register(vtn, OTHER_VEN)
        other = create_message("oadrPoll", ven_id=OTHER_VEN)
        first, second = BODY, BODY.replace("\n", "\n ")
        answers = [await vtn.send("OadrPoll", body) for body in (first, other, second, second, other, first)]
        assert [status for status, _ in answers] == [200] * 6
        assert seen == [VEN, VEN], "each form once"
        assert answers[1][1] == answers[0][1].replace(VEN, OTHER_VEN)
        assert POLLS.of(OTHER_VEN) >= 2


@pytest.mark.parametrize(
    "body",
    [
        BODY + f"<!--{' ' * LONGEST_KNOWN_BYTES}-->",
        BODY + "<!--Signature-->",
        # the name as XML may write it too, and again where it is none
        BODY.replace(VEN, f"&#{ord(VEN[0])};{VEN[1:]}").replace("<oadr:oadrPoll", f"<!--{VEN}--><oadr:oadrPoll"),
        BODY.replace(VEN, f" {VEN} "),
    ],
    ids=["long", "signed", "elsewhere", "spaces"],
)
async def test_what_may_mean_something_else_always_takes_the_long_way(seen: list[Any], body: str) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        for _ in range(2):
            await vtn.send("OadrPoll", body)
        assert len(seen) in {0, 2}, "never known"


async def test_a_form_is_known_only_for_registered_vens(seen: list[Any]) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await vtn.send("OadrPoll", BODY)
        assert "oadrRequestReregistration" in (await vtn.send("OadrPoll", BODY.replace(VEN, OTHER_VEN)))[1]
        assert "oadrRequestReregistration" not in (await vtn.send("OadrPoll", BODY))[1]
        assert (await vtn.send("OadrPoll", BODY.replace(VEN, "Stranger-001")))[0] in {200, 403}
        assert POLLS.of("Stranger-001") == 0


async def test_forms_are_few(seen: list[Any]) -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        for spaces in range(MOST_FORMS + 1):
            await vtn.send("OadrPoll", BODY + " " * spaces)
        del seen[:]
        await vtn.send("OadrPoll", BODY + " ")
        assert seen == []
        await vtn.send("OadrPoll", BODY)
        assert seen == [VEN], "the one that came first was forgotten"


PIECES = [" ", "\n", "\t", "<!-- -->", '"', "'", "x", "<", ">", "&", "oadr", "p1", VEN, OTHER_VEN, "Stranger-001", "é"]


async def test_every_other_poll_gets_the_answer_of_the_long_way() -> None:
    """100 changes of whitespace, quotes, prefixes and ids: after the known poll each is answered as without it."""
    bodies: list[bytes] = [
        BODY.replace("oadr:", "p1:").replace("xmlns:oadr", "xmlns:p1").encode(),
        BODY.replace(VEN, OTHER_VEN).encode(),
        BODY.replace(VEN, f" {VEN} ").encode(),
        BODY.replace('"', "'").encode(),
        BODY.replace(VEN, "Stranger-001").encode(),
        BODY.replace(">", " >").encode(),
    ]

    @settings(max_examples=100, database=None)
    @given(st.integers(0, len(BODY)), st.integers(0, 3), st.sampled_from(PIECES))
    def collect(position: int, removed: int, added: str) -> None:
        bodies.append((BODY[:position] + added + BODY[position + removed :]).encode())

    collect()
    async with running_vtn() as cold:
        await register(cold)
        expected = [await cold.send("OadrPoll", body) for body in bodies]
    async with running_vtn() as vtn:
        await register(vtn)
        _, empty = await vtn.send("OadrPoll", BODY)
        for body, answer in zip(bodies, expected, strict=True):
            assert await vtn.send("OadrPoll", BODY) == (200, empty)
            assert await vtn.send("OadrPoll", body) == answer, body
