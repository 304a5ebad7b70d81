"""Mutual TLS: who is let in, as whom, and what both sides say when not. Real sockets, real certificates."""

import asyncio
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientError
from openleadr import OpenADRClient, OpenADRServer
from openleadr.messaging import create_message, parse_message
from openleadr.service import VTNService

from cariflex.openadr.tls import Tls, client_context, own_certificate
from cariflex.settings import SettingsError
from cariflex.ven.settings import VenTls
from cariflex.vtn.polls import POLLS
from cariflex.vtn.settings import VtnSettings
from tests.unit.services.certificates import Authority, Identity
from tests.unit.services.openadr_support import (
    OTHER_VEN,
    VEN,
    FakeFlexMeasures,
    MemoryStore,
    RunningVen,
    RunningVtn,
    eventually,
    free_port,
    next_hour,
    price_body,
    running_ven,
    running_vtn,
    vtn_settings,
)

POLL = create_message("oadrPoll", ven_id=VEN)
REGISTRATION: dict[str, Any] = {
    "request_id": "r",
    "http_pull_model": True,
    "xml_signature": False,
    "report_only": False,
    "profile_name": "2.0b",
    "transport_name": "simpleHttp",
}


@dataclass(frozen=True)
class Site:
    """An authority with the certificates of a VTN and two VENs."""

    authority: Authority
    vtn: Identity
    ven: Identity
    other: Identity

    def settings(
        self, vens: Mapping[str, list[str]] = MappingProxyType({}), *, signatures: bool = False
    ) -> VtnSettings:
        """Of the VTN; `vens` gives other fingerprints than the certificates have."""
        fingerprints = {VEN: [self.ven.fingerprint], OTHER_VEN: [self.other.fingerprint]} | dict(vens)
        admitted = {
            name: {"registration_id": f"reg-{name}", "fingerprints": known} for name, known in fingerprints.items()
        }
        return vtn_settings(vens=admitted, tls=self.vtn.files | {"signatures": signatures})

    def ven_tls(
        self, ven: Identity | None = None, *, signatures: bool = False, fingerprint: str | None = None
    ) -> VenTls:
        """Of a VEN."""
        known = {"vtn_fingerprint": fingerprint or self.vtn.fingerprint, "signatures": signatures}
        return VenTls.model_validate((ven or self.ven).files | known)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    authority = Authority(tmp_path_factory.mktemp("site"))
    return Site(authority, *(authority.identity(name) for name in ("vtn", "ven", "other")))


@pytest.fixture(autouse=True)
def _openleadr_as_it_was() -> Iterator[None]:
    """openleadr keeps settings on classes."""
    before = {name: value for name, value in vars(VTNService).items() if not name.startswith("__")}
    yield
    for name in set(vars(VTNService)) - set(before):
        if not name.startswith("__"):
            delattr(VTNService, name)
    for name, value in before.items():
        setattr(VTNService, name, value)


def registration(ven: str = VEN, **different: Any) -> str:
    text: str = create_message("oadrCreatePartyRegistration", ven_name=ven, **(REGISTRATION | different))
    return text


async def registered(vtn: RunningVtn, tls: ssl.SSLContext, ven: str = VEN) -> int:
    """Register; the answer's code."""
    return code(*await vtn.send("EiRegisterParty", registration(ven), tls=tls))


def code(status: int, text: str) -> int:
    assert status == 200, text
    answered: int = parse_message(text)[1]["response"]["response_code"]
    return answered


# --- the VTN ---------------------------------------------------------------------------------------------------------


async def test_a_ven_with_its_certificate_registers_and_polls(site: Site) -> None:
    async with running_vtn(settings=site.settings()) as vtn:
        assert await registered(vtn, site.ven.context()) == 200
        assert vtn.store.registrations.keys() == {VEN}
        polls = POLLS.of(VEN)
        for _ in range(3):  # the second and third are answered without parsing
            assert code(*await vtn.send("OadrPoll", POLL, tls=site.ven.context())) == 200
        assert POLLS.of(VEN) == polls + 3


async def refused(vtn: RunningVtn, context: ssl.SSLContext) -> None:
    """The connection ends before a message is heard."""
    with pytest.raises((ClientError, OSError)):
        await vtn.send("EiRegisterParty", registration(), tls=context)
    assert vtn.exchanges == []
    assert vtn.store.registrations == {}


async def test_without_a_certificate_nothing_is_heard(site: Site) -> None:
    async with running_vtn(settings=site.settings()) as vtn:
        await refused(vtn, ssl.create_default_context(cafile=site.vtn.ca))
        assert vtn.handshakes_refused == ["peer did not return a certificate"]


async def test_a_certificate_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger").identity("ven", ca=site.vtn.ca)
    async with running_vtn(settings=site.settings({VEN: [stranger.fingerprint]})) as vtn:
        await refused(vtn, stranger.context())
        assert "certificate" in vtn.handshakes_refused[0]


async def test_an_expired_certificate_is_refused(site: Site) -> None:
    expired = site.authority.identity("expired", lasts=timedelta(seconds=-1))
    async with running_vtn(settings=site.settings({VEN: [expired.fingerprint]})) as vtn:
        await refused(vtn, expired.context())
        assert vtn.handshakes_refused == ["certificate has expired"]


async def test_a_certificate_that_expires_on_an_open_connection_is_refused(site: Site) -> None:
    short = site.authority.identity("short", lasts=timedelta(seconds=2))
    async with running_vtn(settings=site.settings({VEN: [short.fingerprint]})) as vtn:
        connector = aiohttp.TCPConnector(ssl=short.context())
        headers = {"Content-Type": "application/xml"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
            async with http.post(f"{vtn.url}/EiRegisterParty", data=registration()) as answer:
                assert answer.status == 200
                connection = answer.connection
            await asyncio.sleep(2.2)
            async with http.post(f"{vtn.url}/OadrPoll", data=POLL) as answer:
                assert answer.status == 403
                assert "has expired" in await answer.text()
            assert connection is None or len(connector._acquired) == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_tls_is_refused(site: Site, version: ssl.TLSVersion) -> None:
    context = site.ven.context()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with running_vtn(settings=site.settings()) as vtn:
        await refused(vtn, context)


async def test_the_cipher_of_certified_vens_is_spoken(site: Site) -> None:
    context = site.ven.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    async with running_vtn(settings=site.settings()) as vtn:
        assert await registered(vtn, context) == 200


async def test_plain_http_gets_nothing(site: Site) -> None:
    async with running_vtn(settings=site.settings()) as vtn:
        address = f"http://127.0.0.1:{vtn.settings.port}/OpenADR2/Simple/2.0b/OadrPoll"
        with pytest.raises(ClientError):
            async with aiohttp.ClientSession() as http, http.post(address, data=POLL):
                pass


async def test_a_certificate_that_is_not_registered_gets_403_and_nothing_is_stored(site: Site) -> None:
    unknown = site.authority.identity("unknown")
    query = create_message("oadrQueryRegistration", request_id="r")
    async with running_vtn(settings=site.settings()) as vtn:
        assert await registered(vtn, site.ven.context()) == 200
        assert code(*await vtn.send("OadrPoll", POLL, tls=site.ven.context())) == 200
        for service, body in (("EiRegisterParty", registration()), ("EiRegisterParty", query), ("OadrPoll", POLL)):
            status, text = await vtn.send(service, body, tls=unknown.context())
            assert status == 403
            assert unknown.fingerprint in text
        assert (await vtn.send("OadrPoll", b"<nonsense", tls=unknown.context()))[0] == 403


async def test_a_ven_that_speaks_for_another_is_refused(site: Site) -> None:
    ok = {"response_code": 200, "response_description": "OK", "request_id": "r"}
    answer = ok | {"event_id": f"price-1:{VEN}", "modification_number": 0, "opt_type": "optOut"}
    created = create_message("oadrCreatedEvent", ven_id=VEN, response=ok, event_responses=[answer])
    async with running_vtn(settings=site.settings()) as vtn:
        assert await registered(vtn, site.ven.context()) == 200
        # the poll becomes one that is answered without parsing: for its own VEN only
        assert code(*await vtn.send("OadrPoll", POLL, tls=site.ven.context())) == 200
        assert (await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour())))[0] == 201
        other = site.other.context()
        assert await registered(vtn, other, VEN) == 452
        polled = vtn.board.last_poll[VEN]
        assert code(*await vtn.send("OadrPoll", POLL, tls=other)) == 452
        request = create_message("oadrRequestEvent", ven_id=VEN, request_id="r")
        assert code(*await vtn.send("EiEvent", request, tls=other)) == 452
        assert code(*await vtn.send("EiEvent", created, tls=other)) == 452
        assert vtn.store.history["price-1"][-1].opts == {}
        assert vtn.board.last_poll[VEN] == polled
        assert await registered(vtn, other, OTHER_VEN) == 200


async def test_a_known_poll_is_not_answered_to_another_ven(site: Site) -> None:
    async with running_vtn(settings=site.settings()) as vtn:
        assert await registered(vtn, site.ven.context()) == 200
        for _ in range(2):
            assert code(*await vtn.send("OadrPoll", POLL, tls=site.ven.context())) == 200
        assert code(*await vtn.send("OadrPoll", POLL, tls=site.other.context())) == 452
        assert code(*await vtn.send("OadrPoll", POLL, tls=site.ven.context())) == 200


async def test_while_a_ven_changes_its_certificate_both_count(site: Site) -> None:
    following = site.authority.identity("following")
    settings = site.settings({VEN: [site.ven.fingerprint, following.fingerprint]})
    async with running_vtn(settings=settings) as vtn:
        assert await registered(vtn, site.ven.context()) == 200
        assert code(*await vtn.send("OadrPoll", POLL, tls=following.context())) == 200


async def test_the_api_stays_as_it_is(site: Site) -> None:
    async with running_vtn(settings=site.settings()) as vtn:
        assert (await vtn.api("GET", "/api/v1/vens"))[0] == 200
        assert (await vtn.api("GET", "/health", token=None))[0] == 200


def test_a_certificate_of_two_vens_is_refused_in_the_settings(site: Site) -> None:
    with pytest.raises(ValueError, match=f"to both {VEN} and {OTHER_VEN}"):
        site.settings({OTHER_VEN: [site.ven.fingerprint]})


def test_files_that_cannot_be_used_are_named(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("nonsense")
    for key, value, words in (
        ("certificate", broken, "broken.pem is not a certificate"),
        ("certificate", tmp_path / "absent.pem", "absent.pem is not a certificate"),
        ("key", broken, "broken.pem is not the key of"),
        ("key", site.other.key, "other.key is not the key of .*key values mismatch"),
        ("ca", broken, "broken.pem holds no certificates"),
    ):
        with pytest.raises(SettingsError, match=words):
            client_context(Tls.model_validate(site.ven.files | {key: value}), site.vtn.fingerprint)


def test_the_own_certificate_says_when_it_ends(site: Site) -> None:
    expired = site.authority.identity("ended", lasts=timedelta(seconds=-1))
    assert own_certificate(Tls.model_validate(site.ven.files)).troubles() == []
    assert own_certificate(Tls.model_validate(site.ven.files)).fingerprint == site.ven.fingerprint
    assert "expired" in own_certificate(Tls.model_validate(expired.files)).troubles()[0]


# --- VTN and VEN -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signatures", [False, True], ids=["certificates", "signatures"])
async def test_an_event_reaches_flexmeasures_and_is_answered(site: Site, tmp_path: Path, signatures: bool) -> None:
    fake = FakeFlexMeasures()
    await fake.start()
    async with (
        running_vtn(settings=site.settings(signatures=signatures)) as vtn,
        running_ven(vtn.url, fake.url, tmp_path, tls=site.ven_tls(signatures=signatures)) as ven,
    ):
        await eventually(lambda: ven.session.seconds_since_poll is not None)
        start = next_hour()
        assert (await vtn.api("PUT", "/api/v1/events/price-1", price_body(start, 87.5)))[0] == 201
        await eventually(lambda: (event := vtn.board.event("price-1")) and event.opts.get(VEN))
        await eventually(lambda: fake.values(84) == {start: 87.5})
        assert ven.session.trouble is None
        assert all(
            ("SignatureValue" in sent) == ("SignatureValue" in answer) == signatures for sent, answer in vtn.exchanges
        )
    await fake.stop()


async def test_another_vtn_gets_no_message(site: Site, tmp_path: Path) -> None:
    """It is of the same authority, and is not the VTN that this VEN was told of."""
    expected = "00:11:22:33:44:55:66:77:88:99"
    async with (
        running_vtn(settings=site.settings()) as vtn,
        running_ven(vtn.url, "http://127.0.0.1:9", tmp_path, tls=site.ven_tls(fingerprint=expected)) as ven,
    ):
        trouble = await eventually(lambda: (said := ven.session.trouble) and "fingerprint" in said and said)
        assert site.vtn.fingerprint.lower() in trouble
        assert expected in trouble
        assert vtn.exchanges == []


def _trouble_after_trying(ven: RunningVen) -> str | None:
    trouble = ven.session.trouble
    return None if trouble == "not registered at the VTN yet" else trouble


async def test_a_ven_says_why_it_is_refused(site: Site, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger").identity("ven", ca=site.vtn.ca)
    expired = site.authority.identity("expired", lasts=timedelta(seconds=-1))
    for identity, words in (
        (site.authority.identity("unknown"), "is not admitted to this VTN"),
        (stranger, "certificate|unknown ca"),
        (expired, "certificate"),
        (site.other, "452.*another VEN"),
    ):
        folder = tmp_path / identity.fingerprint
        folder.mkdir()
        async with (
            running_vtn(settings=site.settings()) as vtn,
            running_ven(vtn.url, "http://127.0.0.1:9", folder, tls=site.ven_tls(identity)) as ven,
        ):
            said = await eventually(partial(_trouble_after_trying, ven))
            assert re.search(words, said), said
            assert vtn.store.registrations == {}


async def test_a_ven_that_is_revoked_is_out_and_comes_back_with_another_certificate(site: Site, tmp_path: Path) -> None:
    settings, store = site.settings(), MemoryStore()
    revoked = settings.model_copy(update={"vens": site.settings({VEN: []}).vens})
    async with running_ven(
        f"https://127.0.0.1:{settings.port}/OpenADR2/Simple/2.0b", "http://127.0.0.1:9", tmp_path, tls=site.ven_tls()
    ) as ven:
        async with running_vtn(store, settings):
            await eventually(lambda: ven.session.seconds_since_poll is not None)
        async with running_vtn(store, revoked) as vtn:
            await eventually(lambda: "is not admitted" in (ven.session.trouble or ""))
            polled = vtn.board.last_poll.get(VEN)
            assert polled is None
        async with running_vtn(store, settings):
            await eventually(lambda: ven.session.trouble is None)


# --- the other implementation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signatures", [False, True], ids=["certificates", "signatures"])
async def test_plain_openleadrs_ven_gets_an_event_of_our_vtn(site: Site, signatures: bool) -> None:
    seen: list[str] = []

    async def on_event(event: dict[str, Any]) -> str:
        seen.append(event["event_descriptor"]["event_id"])
        return "optIn"

    async with running_vtn(settings=site.settings(signatures=signatures)) as vtn:
        client = OpenADRClient(
            ven_name=VEN,
            vtn_url=vtn.url,
            cert=str(site.ven.certificate),
            key=str(site.ven.key),
            ca_file=str(site.ven.ca),
            vtn_fingerprint=site.vtn.fingerprint if signatures else None,
            disable_signature=not signatures,
            show_fingerprint=False,
            allow_jitter=False,
        )
        client.add_handler("on_event", on_event)
        await client.run()
        await vtn.api("PUT", "/api/v1/events/price-1", price_body(next_hour()))
        try:
            await eventually(lambda: (event := vtn.board.event("price-1")) and event.opts.get(VEN))
        finally:
            await client.stop()
    assert seen == [f"price-1:{VEN}"]


@pytest.mark.parametrize("signatures", [False, True], ids=["certificates", "signatures"])
async def test_our_ven_polls_plain_openleadrs_vtn(site: Site, tmp_path: Path, signatures: bool) -> None:
    port = free_port()
    told = {"registration_id": "reg", "fingerprint": site.ven.fingerprint}
    signing = {"cert": site.vtn.certificate, "key": site.vtn.key} if signatures else {}
    server = OpenADRServer(
        vtn_id="OTHER_VTN",
        http_port=port,
        http_cert=site.vtn.certificate,
        http_key=site.vtn.key,
        http_ca_file=site.vtn.ca,
        ven_lookup=lambda ven_id: told | {"ven_id": ven_id},
        show_fingerprint=False,
        verify_message_signatures=signatures,
        requested_poll_freq=timedelta(seconds=1),
        **signing,
    )

    async def register(_message: dict[str, Any]) -> tuple[str, str]:
        return VEN, "reg"

    server.add_handler("on_create_party_registration", register)
    await server.run()
    url = f"https://127.0.0.1:{port}/OpenADR2/Simple/2.0b"
    tls = site.ven_tls(signatures=signatures)
    try:
        async with running_ven(url, "http://127.0.0.1:9", tmp_path, tls=tls) as ven:
            await eventually(lambda: ven.session.seconds_since_poll is not None)
            assert ven.session.trouble is None
    finally:
        await server.stop()
