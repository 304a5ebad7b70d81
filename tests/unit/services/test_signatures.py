"""Signed messages: what is not signed, not by its sender, changed on the way, old or sent twice is not accepted."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from openleadr import messaging
from openleadr.messaging import create_message, etree, parse_message, validate_xml_schema, validate_xml_signature
from signxml.algorithms import CanonicalizationMethod
from signxml.signer import XMLSigner

from cariflex.openadr.signatures import SignatureError, Signatures
from tests.unit.services.certificates import Authority, Identity
from tests.unit.services.openadr_support import VEN, running_vtn, vtn_settings

OADR = "{http://openadr.org/oadr-2.0b/2012/07}"
DSIG = "{http://www.w3.org/2000/09/xmldsig#}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ven(authority: Authority) -> Identity:
    return authority.identity("ven")


def signed(by: Identity, kind: str = "oadrPoll", **payload: Any) -> str:
    signing = {"cert": by.certificate.read_bytes(), "key": by.key.read_bytes()}
    text: str = create_message(kind, **signing, **({"ven_id": VEN} | payload))
    return text


def verify(text: str, by: Identity, signatures: Signatures | None = None) -> None:
    (signatures or Signatures(5)).verify(validate_xml_schema(text), by.fingerprint)


def test_a_signed_message_is_accepted_once(ven: Identity) -> None:
    signatures, message = Signatures(5), signed(ven)
    verify(message, ven, signatures)
    with pytest.raises(SignatureError, match="received before"):
        verify(message, ven, signatures)
    verify(signed(ven), ven, signatures)


def test_a_message_without_a_signature_is_refused(ven: Identity) -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        verify(create_message("oadrPoll", ven_id=VEN), ven)


def test_a_changed_message_is_refused(ven: Identity) -> None:
    message = signed(ven)
    for before, after in ((VEN, "Cariflex-VEN-009"), ("<dsp:nonce>", "<dsp:nonce>0")):
        assert before in message
        with pytest.raises(SignatureError, match="signature is not valid"):
            verify(message.replace(before, after), ven)


def test_the_signature_of_another_certificate_is_refused(ven: Identity, authority: Authority) -> None:
    other = authority.identity("other")
    with pytest.raises(SignatureError, match=f"not by the certificate {ven.fingerprint}"):
        verify(signed(other), ven)
    # another's signature under the expected certificate
    root = validate_xml_schema(signed(other))
    expected = validate_xml_schema(signed(ven)).find(f".//{DSIG}X509Certificate").text
    root.find(f".//{DSIG}X509Certificate").text = expected
    with pytest.raises(SignatureError, match="signature is not valid"):
        Signatures(5).verify(root, ven.fingerprint)


def test_a_signed_message_that_is_hidden_behind_another_is_refused(
    ven: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openleadr accepts it, and reads the one that is not signed."""

    def exclusive(method: Any, c14n_algorithm: str) -> XMLSigner:  # as other VENs may sign
        return XMLSigner(method=method, c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0)

    monkeypatch.setattr(messaging, "XMLSigner", exclusive)
    root = validate_xml_schema(signed(ven))
    signature, message = root.find(f"{DSIG}Signature"), root.find(f"{OADR}oadrSignedObject")
    forged = etree.fromstring(etree.tostring(message).replace(VEN.encode(), b"Cariflex-VEN-009"))
    forged.attrib.clear()
    hiding = etree.SubElement(signature, f"{DSIG}Object")
    hiding.append(message)
    root.append(forged)
    text = etree.tostring(root)
    validate_xml_signature(validate_xml_schema(text), ven.fingerprint)
    assert parse_message(text)[1]["ven_id"] == "Cariflex-VEN-009"
    with pytest.raises(SignatureError, match="does not cover the message"):
        Signatures(5).verify(validate_xml_schema(text), ven.fingerprint)


@pytest.mark.parametrize(("seconds", "accepted"), [(-6, False), (-4, True), (4, True), (6, False)])
def test_the_time_of_the_signature_counts(ven: Identity, seconds: int, accepted: bool) -> None:
    clock = datetime.now(UTC) + timedelta(seconds=seconds)
    signatures = Signatures(5, clock=lambda: clock)
    if accepted:
        verify(signed(ven), ven, signatures)
    else:
        with pytest.raises(SignatureError, match="5 s are allowed: check both clocks"):
            verify(signed(ven), ven, signatures)


def test_a_message_stays_used_as_long_as_its_time_would_let_it_in(ven: Identity) -> None:
    """The sender's clock is 4 s ahead: its message is young enough for 9 s."""
    sent = datetime.now(UTC)
    now = [sent - timedelta(seconds=4)]
    signatures, message = Signatures(5, clock=lambda: now[0]), signed(ven)
    verify(message, ven, signatures)
    now[0] = sent + timedelta(seconds=4.5)
    with pytest.raises(SignatureError, match="received before"):
        verify(message, ven, signatures)
    now[0] = sent + timedelta(seconds=20)
    with pytest.raises(SignatureError, match="check both clocks"):
        verify(message, ven, signatures)


def test_messages_that_were_used_are_forgotten(ven: Identity) -> None:
    now = [datetime.now(UTC)]
    signatures = Signatures(1, clock=lambda: now[0])
    verify(signed(ven), ven, signatures)
    verify(signed(ven), ven, signatures)
    assert len(signatures._used) == 2
    time.sleep(2.1)
    now[0] = datetime.now(UTC)
    verify(signed(ven), ven, signatures)
    assert len(signatures._used) == 1


async def test_a_verifying_vtn_answers_4xx_to_whatever_is_not_right(ven: Identity, authority: Authority) -> None:
    """Plain openleadr answers HTTP 500 to a VEN that does not sign."""
    vtn_identity = authority.identity("vtn")
    settings = vtn_settings(
        vens={VEN: {"registration_id": "reg", "fingerprints": [ven.fingerprint]}},
        tls=vtn_identity.files | {"signatures": True},
    )
    registration = partial(
        signed,
        ven,
        "oadrCreatePartyRegistration",
        ven_id=None,
        ven_name=VEN,
        request_id="r",
        http_pull_model=True,
        xml_signature=True,
        report_only=False,
        profile_name="2.0b",
        transport_name="simpleHttp",
    )
    async with running_vtn(settings=settings) as vtn:
        send = partial(vtn.send, tls=ven.context())
        for service in ("EiRegisterParty", "OadrPoll", "EiEvent", "EiReport"):
            status, text = await send(service, create_message("oadrPoll", ven_id=VEN))
            assert (status, text) == (403, "Not accepted: the message is not signed.\n")
        assert (await send("EiRegisterParty", registration().replace(VEN, "Cariflex-VEN-002")))[0] == 403
        assert (await send("OadrPoll", "<nonsense"))[0] == 400
        assert (await send("OadrPoll", "<a/>"))[0] == 400
        assert vtn.store.registrations == {}

        message = registration()
        status, text = await send("EiRegisterParty", message)
        assert status == 200
        Signatures(5).verify(validate_xml_schema(text), vtn_identity.fingerprint)
        assert (await send("EiRegisterParty", message))[0] == 403
        poll = signed(ven)
        assert (await send("OadrPoll", poll))[0] == 200
        assert (await send("OadrPoll", poll)) == (403, "Not accepted: the message was received before.\n")
