"""The VTN towards its VENs: each trap of plain openleadr, and whatever else may come in."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openleadr.messaging import create_message, parse_message, validate_xml_schema

from tests.unit.services.openadr_support import (
    OTHER_VEN,
    VEN,
    MemoryStore,
    RunningVtn,
    next_hour,
    price_body,
    running_vtn,
    vtn_settings,
)

EVENT = "/api/v1/events/price-1"
WIRE_ID = f"price-1:{VEN}"


async def ask(vtn: RunningVtn, service: str, kind: str, **payload: Any) -> tuple[str, dict[str, Any]]:
    """Send a well-formed message and parse the answer, which must be valid OpenADR."""
    status, text = await vtn.send(service, create_message(kind, **payload))
    assert status == 200, text
    validate_xml_schema(text)
    answer: tuple[str, dict[str, Any]] = parse_message(text)
    return answer


async def register(vtn: RunningVtn, ven_id: str = VEN) -> dict[str, Any]:
    _, payload = await ask(
        vtn,
        "EiRegisterParty",
        "oadrCreatePartyRegistration",
        request_id="r",
        ven_name=ven_id,
        http_pull_model=True,
        xml_signature=False,
        report_only=False,
        profile_name="2.0b",
        transport_name="simpleHttp",
    )
    return payload


async def poll(vtn: RunningVtn, ven_id: str = VEN) -> list[tuple[str, int, str]] | None:
    """The events a poll brings (id, modification number, status), or None for the empty answer."""
    kind, payload = await ask(vtn, "OadrPoll", "oadrPoll", ven_id=ven_id)
    if kind == "oadrResponse":
        assert payload["response"]["response_code"] == 200
        return None
    assert kind == "oadrDistributeEvent"
    descriptors = [event["event_descriptor"] for event in payload["events"]]
    return [(d["event_id"], d["modification_number"], d["event_status"]) for d in descriptors]


async def opt(
    vtn: RunningVtn, event_id: str = WIRE_ID, number: int = 0, opt_type: str = "optIn", ven_id: str = VEN
) -> int:
    """Answer an event; the response code."""
    ok = {"response_code": 200, "response_description": "OK", "request_id": "r"}
    response = ok | {"event_id": event_id, "modification_number": number, "opt_type": opt_type}
    _, payload = await ask(vtn, "EiEvent", "oadrCreatedEvent", ven_id=ven_id, response=ok, event_responses=[response])
    code: int = payload["response"]["response_code"]
    return code


async def put(vtn: RunningVtn, *values: float, **different: Any) -> None:
    status, answer = await vtn.api("PUT", EVENT, price_body(next_hour(), *values) | different)
    assert status in (200, 201), answer


async def test_a_listed_ven_gets_its_documented_registration() -> None:
    async with running_vtn() as vtn:
        answer = await register(vtn)
        assert (answer["ven_id"], answer["registration_id"]) == (VEN, f"reg-{VEN}")
        assert answer["requested_oadr_poll_freq"].total_seconds() == 1


async def test_a_ven_that_is_not_listed_is_not_admitted() -> None:
    async with running_vtn() as vtn:
        answer = await register(vtn, "Stranger-001")
        assert answer["response"]["response_code"] == 463
        assert vtn.store.registrations == {}
        for service, kind in (("OadrPoll", "oadrPoll"), ("EiEvent", "oadrRequestEvent")):
            _, payload = await ask(vtn, service, kind, ven_id="Stranger-001", request_id="r")
            assert payload["response"]["response_code"] == 463


async def test_a_listed_ven_that_has_not_registered_is_asked_to() -> None:
    async with running_vtn() as vtn:
        kind, _ = await ask(vtn, "OadrPoll", "oadrPoll", ven_id=VEN)
        assert kind == "oadrRequestReregistration"


async def test_a_ven_can_deregister() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        ids = {"request_id": "r", "ven_id": VEN}
        _, payload = await ask(
            vtn, "EiRegisterParty", "oadrCancelPartyRegistration", registration_id="reg-other", **ids
        )
        assert payload["response"]["response_code"] == 452
        kind, _ = await ask(vtn, "EiRegisterParty", "oadrCancelPartyRegistration", registration_id=f"reg-{VEN}", **ids)
        assert kind == "oadrCanceledPartyRegistration"
        assert vtn.store.registrations == {}


async def test_registrations_and_events_survive_a_restart() -> None:
    """Plain openleadr forgets both."""
    store = MemoryStore()
    async with running_vtn(store) as vtn:
        await register(vtn)
        await put(vtn)
    async with running_vtn(store) as vtn:
        assert await poll(vtn) == [(WIRE_ID, 0, "far")]


async def test_an_event_is_sent_until_it_is_answered_and_then_no_more() -> None:
    """Plain openleadr sends it once, and loses it when the answer is lost."""
    async with running_vtn() as vtn:
        await register(vtn)
        assert await poll(vtn) is None
        await put(vtn)
        for _ in range(3):
            assert await poll(vtn) == [(WIRE_ID, 0, "far")]
        assert await opt(vtn) == 200
        assert await poll(vtn) is None


async def test_an_answer_that_cannot_be_stored_is_asked_for_again() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        vtn.store.broken = True
        assert await opt(vtn) == 469
        assert await poll(vtn) == [(WIRE_ID, 0, "far")], "polls are answered from memory while the store is away"
        vtn.store.broken = False
        assert await opt(vtn) == 200
        assert await poll(vtn) is None


async def test_a_modification_is_sent_and_its_own_answer_kept() -> None:
    """Plain openleadr has no way to modify, and tells nobody the answer."""
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        await opt(vtn)
        await put(vtn, 99.0)
        assert await poll(vtn) == [(WIRE_ID, 1, "far")]
        assert await opt(vtn, number=0) == 200, "an answer to the version before is accepted"
        assert await poll(vtn) == [(WIRE_ID, 1, "far")], "but it does not count for this one"
        await opt(vtn, number=1, opt_type="optOut")
        assert await poll(vtn) is None
        _, event = await vtn.api("GET", EVENT)
        assert (event["opts"][VEN]["opt_type"], event["opts"][VEN]["modification_number"]) == ("optOut", 1)


async def test_a_cancellation_is_sent_until_confirmed() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        await opt(vtn)
        await vtn.api("DELETE", EVENT)
        assert await poll(vtn) == [(WIRE_ID, 1, "cancelled")]
        await opt(vtn, number=1)
        assert await poll(vtn) is None
        _, event = await vtn.api("GET", EVENT)
        assert event["opts"][VEN]["modification_number"] == 1


async def test_every_ven_has_its_own_id_for_an_event_and_its_own_answer() -> None:
    """With plain openleadr only the first answer to an id shared by two VENs reaches anyone."""
    async with running_vtn() as vtn:
        await register(vtn)
        await register(vtn, OTHER_VEN)
        await put(vtn, targets="all")
        assert await poll(vtn, OTHER_VEN) == [(f"price-1:{OTHER_VEN}", 0, "far")]
        await opt(vtn, f"price-1:{OTHER_VEN}", opt_type="optOut", ven_id=OTHER_VEN)
        await opt(vtn)
        _, event = await vtn.api("GET", EVENT)
        assert {ven: answer["opt_type"] for ven, answer in event["opts"].items()} == {VEN: "optIn", OTHER_VEN: "optOut"}


async def test_a_ven_cannot_answer_for_another() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await register(vtn, OTHER_VEN)
        await put(vtn)
        assert await opt(vtn, WIRE_ID, ven_id=OTHER_VEN) == 452
        assert await poll(vtn) == [(WIRE_ID, 0, "far")]


async def test_a_ven_only_sees_its_events() -> None:
    async with running_vtn() as vtn:
        await register(vtn, OTHER_VEN)
        await put(vtn)
        assert await poll(vtn, OTHER_VEN) is None


async def test_an_unanswered_event_brings_all_events_along() -> None:
    """What an oadrDistributeEvent leaves out counts as withdrawn."""
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        await opt(vtn)
        await vtn.api("PUT", "/api/v1/events/price-2", price_body(next_hour(5)))
        assert await poll(vtn) == [(WIRE_ID, 0, "far"), (f"price-2:{VEN}", 0, "far")]


async def test_a_ven_that_asks_gets_its_events_answered_or_not() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn)
        await opt(vtn)
        kind, payload = await ask(vtn, "EiEvent", "oadrRequestEvent", ven_id=VEN, request_id="r")
        assert kind == "oadrDistributeEvent"
        assert [event["event_descriptor"]["event_id"] for event in payload["events"]] == [WIRE_ID]


async def test_an_answer_of_a_ven_without_events_is_a_protocol_error() -> None:
    """Plain openleadr answers HTTP 500."""
    async with running_vtn() as vtn:
        await register(vtn)
        assert await opt(vtn, "unknown") == 452
        assert await opt(vtn, f"unknown:{VEN}") == 452


async def test_the_vtn_sends_standard_units() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        await put(vtn, 120.0)
        _, payload = await ask(vtn, "OadrPoll", "oadrPoll", ven_id=VEN)
        (signal,) = payload["events"][0]["event_signals"]
        assert (signal["signal_name"], signal["signal_type"]) == ("ENERGY_PRICE", "price")
        assert (signal["measurement"]["name"], signal["measurement"]["unit"]) == ("currencyPerKWh", "EUR")
        assert signal["intervals"][0]["signal_payload"] == 0.12


async def test_another_content_type_is_refused_with_415() -> None:
    """Plain openleadr answers HTTP 500."""
    async with running_vtn() as vtn:
        status, text = await vtn.send("OadrPoll", create_message("oadrPoll", ven_id=VEN), "text/plain")
        assert (status, text) == (415, "The Content-Type must be application/xml.\n")


BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<oadr:oadrPayload xmlns:oadr="http://openadr.org/oadr-2.0b/2012/07">&b;</oadr:oadrPayload>"""
EXTERNAL = BOMB.replace('<!ENTITY a "aaaaaaaaaa">', '<!ENTITY a SYSTEM "file:///etc/passwd">')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not xml",
        b"<a/>",
        b"\xff\xfe\x00",
        BOMB.encode(),
        EXTERNAL.encode(),
        BOMB.replace('version="1.0"', 'version="1.0" encoding="UTF-16"').encode("utf-16"),
        BOMB.replace('version="1.0"', 'version="1.0" encoding="utf-7"').encode("utf-7"),
        b"\xef\xbb\xbf" + BOMB.replace('version="1.0"', 'version="1.0" encoding="cp037"').encode(),
        create_message("oadrPoll", ven_id=VEN).replace("oadr-2.0b", "oadr-2.0a").encode(),
        create_message("oadrPoll", ven_id=VEN).replace("venID", "ven").encode(),
        create_message("oadrPoll", ven_id=VEN)[:200].encode(),
    ],
)
async def test_what_is_no_openadr_is_refused_with_400(body: bytes) -> None:
    async with running_vtn() as vtn:
        status, text = await vtn.send("OadrPoll", body)
        assert status == 400
        assert "passwd" not in text
        assert "root:" not in text


def test_the_parser_itself_survives_entities() -> None:
    """openleadr's own parser dies of them, with the whole process; the VEN's client uses it without a guard before."""
    for body in (BOMB, EXTERNAL):
        with pytest.raises(SyntaxError):
            validate_xml_schema(body)


async def test_an_oversized_message_is_refused_with_413() -> None:
    async with running_vtn() as vtn:
        assert (await vtn.send("OadrPoll", b" " * (1024 * 1024 + 1)))[0] == 413


async def test_other_methods_and_addresses_are_refused() -> None:
    async with running_vtn() as vtn:
        assert (await vtn.send("EiNothing", create_message("oadrPoll", ven_id=VEN)))[0] == 404


async def test_a_message_at_the_wrong_service_is_a_protocol_error() -> None:
    async with running_vtn() as vtn:
        await register(vtn)
        _, payload = await ask(vtn, "EiEvent", "oadrPoll", ven_id=VEN)
        assert payload["response"]["response_code"] == 459


async def test_what_a_ven_sends_is_escaped_in_the_answer() -> None:
    """Plain openleadr copies it as it is, and the answer is no XML any more."""
    async with running_vtn() as vtn:
        body = create_message("oadrQueryRegistration", request_id="a<b>&amp;c")
        _, payload = await _raw(vtn, "EiRegisterParty", body)
        assert payload["response"]["request_id"] == "a<b>&amp;c"


async def _raw(vtn: RunningVtn, service: str, body: str) -> tuple[str, dict[str, Any]]:
    status, text = await vtn.send(service, body)
    assert status == 200, text
    validate_xml_schema(text)
    answer: tuple[str, dict[str, Any]] = parse_message(text)
    return answer


MESSAGES = [
    ("OadrPoll", create_message("oadrPoll", ven_id=VEN)),
    ("EiEvent", create_message("oadrRequestEvent", ven_id=VEN, request_id="r")),
    (
        "EiEvent",
        create_message(
            "oadrCreatedEvent",
            ven_id=VEN,
            response={"response_code": 200, "response_description": "OK"},
            event_responses=[
                {
                    "response_code": 200,
                    "response_description": "OK",
                    "request_id": "r",
                    "event_id": WIRE_ID,
                    "modification_number": 0,
                    "opt_type": "optIn",
                }
            ],
        ),
    ),
    ("EiRegisterParty", create_message("oadrQueryRegistration", request_id="r")),
    ("EiReport", create_message("oadrRegisterReport", request_id="r", ven_id=VEN, reports=[], report_request_id=0)),
    (
        "EiRegisterParty",
        create_message("oadrCancelPartyRegistration", request_id="r", ven_id=VEN, registration_id=f"reg-{VEN}"),
    ),
]

texts = st.sampled_from(["", "17", "true", "-1", "1e999", "a" * 5000, "&lt;x&gt;", "\u202e", "9" * 400, "P1Y"])


async def send_mutated(vtn: RunningVtn, messages: Sequence[tuple[str, str]], examples: int) -> None:
    """Send (service, message) broken in many ways: each is answered, validly, or refused with 4xx."""
    seen: list[tuple[str, bytes]] = []

    @settings(max_examples=examples, database=None)
    @given(st.sampled_from(messages), st.data())
    def collect(message: tuple[str, str], data: st.DataObject) -> None:
        service, body = message
        how = data.draw(st.sampled_from(["cut", "text", "double", "bytes"]))
        raw = body.encode()
        position = data.draw(st.integers(0, len(raw) - 1))
        if how == "cut":
            raw = raw[:position] + raw[data.draw(st.integers(position, len(raw))) :]
        elif how == "text":
            start = body.find(">", position) + 1
            end = body.find("<", start)
            raw = (body[:start] + data.draw(texts) + body[end:]).encode()
        elif how == "double":
            raw = raw[:position] + raw
        else:
            raw = raw[:position] + data.draw(st.binary(min_size=1, max_size=4)) + raw[position + 1 :]
        seen.append((service, raw))

    collect()
    for service, raw in seen:
        status, text = await vtn.send(service, raw)
        assert status == 200 or 400 <= status < 500, (status, raw)
        if status == 200 and text:
            validate_xml_schema(text)


async def test_broken_messages_are_never_the_vtns_fault() -> None:
    """Mutated messages, 300 of them: an answer or 4xx, never 5xx, and the VTN goes on."""
    async with running_vtn(settings=vtn_settings()) as vtn:
        await register(vtn)
        await put(vtn)
        await send_mutated(vtn, MESSAGES, 300)
        await register(vtn)
        assert await opt(vtn) == 200
