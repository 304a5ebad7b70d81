"""Signed messages: XMLDSig over the message and over a time stamp that makes each message usable once.

openleadr signs. Verifying is done here, because openleadr's way answers HTTP 500 to a message without a signature,
and accepts a signature over another part of the document than the one it then reads.
"""

import binascii
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from openleadr.messaging import etree
from openleadr.utils import certificate_fingerprint_from_der
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

_OADR = "{http://openadr.org/oadr-2.0b/2012/07}"
_REPLAY = "{http://openadr.org/oadr-2.0b/2012/07/xmldsig-properties}"
_DSIG = "{http://www.w3.org/2000/09/xmldsig#}"
# The signature is where the schema has it, and covers the message and its time stamp.
_EXPECTED = SignatureConfiguration(location="./", expect_references=2)


class SignatureError(Exception):
    """A message is not signed as it has to be; the text says why."""


class Signatures:
    """Verifies signatures, and remembers which were used."""

    def __init__(self, replay_seconds: int, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._window = timedelta(seconds=replay_seconds)
        self._clock = clock
        self._verifier = XMLVerifier()  # one for all: it reads its schemas at its first use
        self._used: dict[tuple[str, str], datetime] = {}  # in the order in which they may be forgotten

    def verify(self, message: Any, fingerprint: str) -> None:
        """Make sure that the holder of a certificate signed this message, just now, and that it is new.

        Args:
            message: the root of a message that is valid after OpenADR's schema.
            fingerprint: of the certificate.

        Raises:
            SignatureError: it is not so.
        """
        pem = _certificate(message, fingerprint)
        try:
            results = self._verifier.verify(message, x509_cert=pem, expect_config=_EXPECTED)
        except (SignXMLException, etree.LxmlError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise SignatureError("the signature is not valid") from error
        signed: list[Any] = [result.signed_xml for result in results] if isinstance(results, list) else []
        # There must be no second one that was signed while the first one is read.
        messages = [part for part in signed if part is not None and part.tag == f"{_OADR}oadrSignedObject"]
        if len(messages) != 1 or len(list(message.iter(f"{_OADR}oadrSignedObject"))) != 1:
            raise SignatureError("the signature does not cover the message")
        self._use(fingerprint, next((part for part in signed if part is not messages[0]), None))

    def _use(self, fingerprint: str, properties: Any) -> None:
        stamp = None if properties is None else next(properties.iter(f"{_REPLAY}ReplayProtect"), None)
        if stamp is None:
            raise SignatureError("the signature does not cover a ReplayProtect")
        nonce = stamp.findtext(f"{_REPLAY}nonce")
        try:
            age = self._clock() - datetime.fromisoformat(stamp.findtext(f"{_REPLAY}timestamp"))
        except (TypeError, ValueError):
            raise SignatureError("the signature has no valid time") from None
        if abs(age) > self._window:
            allowed = f"{self._window.total_seconds():.0f} s are allowed: check both clocks"
            raise SignatureError(f"it was signed {age.total_seconds():.0f} s ago, and {allowed}")
        for used, until in list(self._used.items()):
            if until > self._clock():
                break
            del self._used[used]
        if not nonce or (fingerprint, nonce) in self._used:
            raise SignatureError("the message was received before")
        # Signed at most one window ahead of this clock, it stays young enough for two.
        self._used[fingerprint, nonce] = self._clock() + 2 * self._window


def _certificate(message: Any, fingerprint: str) -> str:
    """The certificate that a message says it was signed with, if it is the expected one."""
    found = message.findtext(f"./{_DSIG}Signature/{_DSIG}KeyInfo/{_DSIG}X509Data/{_DSIG}X509Certificate")
    if found is None:
        raise SignatureError("the message is not signed")
    try:
        der = binascii.a2b_base64(found)
    except ValueError:
        raise SignatureError("the certificate in the signature cannot be read") from None
    if certificate_fingerprint_from_der(der) != fingerprint:
        raise SignatureError(f"the signature is not by the certificate {fingerprint}")
    return ssl.DER_cert_to_PEM_cert(der)
