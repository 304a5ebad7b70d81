"""Mutual TLS as OpenADR wants it: TLS 1.2 or later, certificates on both sides, each side known by its fingerprint.

The authority alone does not admit anybody: whoever it signed for has to be registered by fingerprint as well, and is
looked up for every message. So taking a fingerprint away works at once, also for a connection that is open.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from aiohttp import web
from cryptography import x509
from openleadr.utils import certificate_fingerprint_from_der
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cariflex.settings import SettingsError

# The last ten bytes of the certificate's SHA-256, as OpenADR defines it.
Fingerprint = Annotated[str, StringConstraints(pattern=r"^([0-9A-F]{2}:){9}[0-9A-F]{2}$")]

# Forward secrecy only. The last one is what OpenADR 2.0b names for ECC; certified VENs may have nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE-ECDSA-AES128-SHA256"


class Tls(BaseModel):
    """Certificate of this side, and authority of the other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path = Field(
        description="the PEM file of this side's certificate", examples=["/run/secrets/openadr_vtn_certificate"]
    )
    key: Path = Field(description="the PEM file of its private key", examples=["/run/secrets/openadr_vtn_key"])
    ca: Path = Field(
        description="the PEM file of the authority that signs the other side's certificates",
        examples=["/run/secrets/openadr_ca"],
    )
    signatures: bool = Field(
        default=False, description="whether every message is signed, in both directions", examples=[False]
    )
    replay_seconds: int = Field(
        5, ge=1, le=3600, description="the seconds that a signature's time may be off this clock", examples=[5]
    )


@dataclass(frozen=True, slots=True)
class Certificate:
    """What matters of a certificate."""

    fingerprint: str
    expires: datetime

    @property
    def expired(self) -> bool:
        """Whether it has ended; a connection may outlive its certificate."""
        return self.expires <= datetime.now(UTC)

    def as_dict(self) -> dict[str, str]:
        """The form in which /health shows it."""
        return {"fingerprint": self.fingerprint, "expires": self.expires.isoformat()}

    def troubles(self) -> list[str]:
        """Why a service with this certificate of its own is not well."""
        return [f"the certificate expired at {self.expires.isoformat()}; deploy to renew it"] if self.expired else []


@lru_cache(maxsize=20_000)
def certificate_of(der: bytes) -> Certificate:
    """Read a certificate in DER form."""
    return Certificate(certificate_fingerprint_from_der(der), x509.load_der_x509_certificate(der).not_valid_after_utc)


def own_certificate(tls: Tls) -> Certificate:
    """Read this side's certificate.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return certificate_of(ssl.PEM_cert_to_DER_cert(tls.certificate.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"tls.certificate: {tls.certificate} is not a certificate in PEM form ({error}).") from None


def peer_certificate(request: web.Request) -> Certificate | None:
    """The certificate at the other end of a request's connection; None without TLS."""
    tunnel = request.get_extra_info("ssl_object")
    der = tunnel.getpeercert(binary_form=True) if tunnel else None
    return certificate_of(der) if der else None


def server_context(tls: Tls, refused: Callable[[str], None]) -> ssl.SSLContext:
    """For a server that lets nobody in without a certificate of the authority.

    Args:
        tls: files.
        refused: told the reason when a handshake fails.

    Raises:
        SettingsError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    # A resumed session would not look at the certificate's dates again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0

    class Tunnel(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                refused(reason_of(error))
                raise

    context.sslobject_class = Tunnel
    return context


def client_context(tls: Tls, fingerprint: str) -> ssl.SSLContext:
    """For a client that sends nothing unless the server has the expected certificate.

    Raises:
        SettingsError: a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls)

    class Tunnel(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            found = certificate_of(self.getpeercert(binary_form=True) or b"").fingerprint
            if found != fingerprint:
                raise ssl.SSLCertVerificationError(
                    f"the VTN's certificate has the fingerprint {found}, expected is {fingerprint}"
                )

    context.sslobject_class = Tunnel
    return context


def _context(protocol: int, tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.verify_mode = ssl.CERT_REQUIRED
    own_certificate(tls)  # says which file it is, which OpenSSL does not
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"tls.key: {tls.key} is not the key of {tls.certificate} ({reason_of(error)}).") from None
    try:
        context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"tls.ca: {tls.ca} holds no certificates in PEM form ({reason_of(error)}).") from None
    return context


def reason_of(error: OSError) -> str:
    """What TLS says went wrong, without the names of OpenSSL's functions."""
    words = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error.strerror or str(error)
    return str(words).replace("_", " ").lower()
