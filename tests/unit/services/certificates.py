"""Authorities and P-256 certificates for tests, as files."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from openleadr.utils import certificate_fingerprint


@dataclass(frozen=True)
class Identity:
    """A certificate with its key and the authority that signed it."""

    certificate: Path
    key: Path
    ca: Path

    @property
    def fingerprint(self) -> str:
        fingerprint: str = certificate_fingerprint(self.certificate.read_text())
        return fingerprint

    @property
    def files(self) -> dict[str, Path]:
        """As the settings `tls` of a service have them."""
        return {"certificate": self.certificate, "key": self.key, "ca": self.ca}

    def context(self) -> ssl.SSLContext:
        """For a client with this certificate that looks at the server's no further than its authority."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self._signed(self._name, self._key, timedelta(days=1), ca=True))

    def identity(self, name: str, lasts: timedelta = timedelta(days=1), ca: Path | None = None) -> Identity:
        """Make a certificate for `name`; `ca` is the authority it is to trust, this one if left out."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate.write_bytes(self._signed(subject, key, lasts, ca=False))
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
        return Identity(certificate, key_file, ca or self.ca)

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta, *, ca: bool) -> bytes:
        now = datetime.now(UTC)
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if not ca:
            address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
            builder = builder.add_extension(address, critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
