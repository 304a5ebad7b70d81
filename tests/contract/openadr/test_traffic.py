"""Every message that our VTN and VEN exchange is valid against the OpenADR 2.0b schema.

The schema is read here anew from the files that ship with openleadr, so a weakness of openleadr's validation shows.
"""

import json
from pathlib import Path

import openleadr
import pytest
from lxml import etree  # type: ignore[import-untyped]
from openleadr.messaging import create_message

from cariflex.vtn.events import EventRequest, distribution, requested
from tests.unit.services.openadr_support import (
    VEN,
    FakeFlexMeasures,
    RunningVtn,
    eventually,
    next_hour,
    price_body,
    running_ven,
    running_vtn,
    vtn_settings,
)
from tests.unit.services.test_vtn_opts_reports import create_opt, say, stock_templates, stock_ven

__all__ = ["stock_templates"]

OADR = "{http://openadr.org/oadr-2.0b/2012/07}"
SCHEMA = etree.XMLSchema(etree.parse(str(Path(openleadr.__file__).parent / "schema" / "oadr_20b.xsd")))


def kind_of(message: str) -> str:
    """Validate a message and tell its type."""
    tree = etree.fromstring(message.encode())
    SCHEMA.assertValid(tree)
    return str(tree.find(f"{OADR}oadrSignedObject")[0].tag).removeprefix(OADR)


async def everything_that_can_happen(vtn: RunningVtn, folder: Path) -> None:
    """A VEN registers, gets all signals, a modification and a cancellation, and is asked to register again."""

    def answered(number: int, *event_ids: str) -> bool:
        events = [event for event_id in event_ids if (event := vtn.board.event(event_id))]
        return all(event.modification_number == number and not event.unanswered_by(VEN) for event in events)

    fake = FakeFlexMeasures()
    await fake.start()
    start = next_hour()
    bodies = {
        "price": price_body(start, *(80.0 + hour for hour in range(24)), priority=1),
        "limit": price_body(
            start, signal_name="LOAD_CONTROL", unit="%", intervals=[{"duration": "PT4H", "value": 70}], targets="all"
        ),
        "level": price_body(
            start, signal_name="SIMPLE", unit="dimensionless", intervals=[{"duration": "PT15M", "value": 2}]
        ),
        "dispatch": price_body(
            start, signal_name="LOAD_DISPATCH", unit="kW", intervals=[{"duration": "PT15M", "value": -20.5}]
        ),
        "charge": price_body(
            start, signal_name="CHARGE_STATE", unit="kWh", intervals=[{"duration": "PT15M", "value": 1e6}]
        ),
        "trial": price_body(start, 1e-7, -0.001, test_event=True),
    }
    async with running_ven(vtn.url, fake.url, folder):
        for event_id, body in bodies.items():
            status, answer = await vtn.api("PUT", f"/api/v1/events/{event_id}", body)
            assert status == 201, answer
        await eventually(lambda: answered(0, *bodies))
        await vtn.api("PUT", "/api/v1/events/price", bodies["price"] | {"priority": 2})
        await eventually(lambda: answered(1, "price"))
        await vtn.api("DELETE", "/api/v1/events/limit")
        await eventually(lambda: answered(1, "limit"))
        vtn.board.deregistered(VEN)  # as after a restore of the VTN from an older backup
        asked = len(vtn.exchanges)
        await eventually(lambda: any("oadrCreatePartyRegistration" in sent for sent, _ in vtn.exchanges[asked:]))
    await fake.stop()


async def test_all_traffic_is_valid_in_both_directions(tmp_path: Path) -> None:
    async with running_vtn() as vtn:
        await everything_that_can_happen(vtn, tmp_path)
        sent = {kind_of(request) for request, _ in vtn.exchanges}
        answered = {kind_of(response) for _, response in vtn.exchanges if response}
    assert sent >= {
        "oadrCreatePartyRegistration",
        "oadrRegisterReport",
        "oadrRequestEvent",
        "oadrPoll",
        "oadrCreatedEvent",
    }
    assert answered >= {
        "oadrCreatedPartyRegistration",
        "oadrRegisteredReport",
        "oadrDistributeEvent",
        "oadrResponse",
        "oadrRequestReregistration",
    }


async def test_opts_and_reports_are_valid_in_both_directions(stock_templates: None) -> None:
    async with running_vtn(settings=vtn_settings(reports={"TELEMETRY_USAGE": "PT1S"})) as vtn:
        ven = await stock_ven(vtn)
        await ven.run()
        try:
            await eventually(lambda: vtn.store.data)
        finally:
            await ven.stop()
        await say(vtn, create_opt())
        await say(vtn, create_opt(opt_type="optIn"))
        await say(vtn, create_message("oadrCancelOpt", request_id="r", opt_id="opt-1", ven_id=VEN))
        sent = {kind_of(request) for request, _ in vtn.exchanges}
        answered = {kind_of(response) for _, response in vtn.exchanges if response}
    reports = {"oadrRegisterReport", "oadrCreatedReport", "oadrUpdateReport"}
    assert sent >= {"oadrCreateOpt", "oadrCancelOpt", *reports}
    opts = {"oadrCreatedOpt", "oadrCanceledOpt"}
    assert answered >= {"oadrRegisteredReport", "oadrUpdatedReport", "oadrResponse", *opts}


def test_the_schema_really_refuses() -> None:
    """The oracle works: the unit that plain openleadr sends without looking is refused."""
    request = EventRequest.parse(json.dumps(price_body(next_hour())).encode())
    event = requested("a", request, None, [VEN], next_hour())
    message = create_message("oadrDistributeEvent", **distribution("CARIFLEX_VTN", [event], VEN, next_hour()))
    assert kind_of(message) == "oadrDistributeEvent"
    with pytest.raises(etree.DocumentInvalid, match="itemUnits"):
        kind_of(message.replace(">EUR<", ">EUR/MWh<"))
