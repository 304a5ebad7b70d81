"""OpenADR's certificates: of VENs by `playbooks/ven_certificates.yml`, of this system by the deployment."""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.playbook import ROOT, Run, play
from tests.support.services import python

PASSWORD = "a password of this test"
LOCAL, NORTH = "Cariflex-VEN-001", "North"
MAIN = """
ems_environment: {environment}
openadr_tls: true
topology_overrides:
  openadr:
    vens:
      North: {{registration_id: reg-North}}
"""


@dataclass(frozen=True)
class Environment:
    """An inventory of nothing but variables, with a folder for what is handed over."""

    name: str
    folder: Path

    @property
    def variables(self) -> Path:
        return self.folder / "inventory/group_vars/all"

    @property
    def handover(self) -> Path:
        return self.folder / "handover"

    def run(self, *arguments: str, playbook: str = "playbooks/ven_certificates.yml") -> Run:
        password = {} if self.name == "dev" else {"ANSIBLE_VAULT_PASSWORD_FILE": str(self.folder / "password")}
        given = json.dumps({"openadr_handover_path": str(self.handover)})
        return play("-i", self.folder / "inventory", playbook, "-e", given, *arguments, timeout=300, **password)

    def registered(self, ven: str = NORTH) -> list[dict[str, str]]:
        known = yaml.safe_load((self.variables / "openadr_vens.yml").read_text())["openadr_ven_certificates"]
        return list(known.get(ven, []))

    def handed(self, name: str) -> bytes:
        return (self.handover / NORTH / name).read_bytes()


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    name = getattr(request, "param", "prod")
    made = Environment(name, tmp_path)
    made.variables.mkdir(parents=True)
    (made.variables / "main.yml").write_text(MAIN.format(environment=name))
    (tmp_path / "inventory/hosts.yml").write_text("ems: {hosts: {nowhere.example: {}}}\n")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return made


def fingerprint(certificate: x509.Certificate) -> str:
    """As OpenADR defines it."""
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
    return digest[-10:].hex(":").upper()


def usage(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize("environment", ["dev", "prod"], indirect=True)
def test_a_ven_gets_a_certificate_once(environment: Environment) -> None:
    preview = environment.run("--tags", "issue", "-e", f"ven={NORTH}", "--check")
    assert preview.status == 0, preview.output
    assert sorted(path.name for path in environment.variables.iterdir()) == ["main.yml"]
    assert not environment.handover.exists()

    issued = environment.run("--tags", "issue", "-e", f"ven={NORTH}")
    assert issued.status == 0, issued.output
    certificate = x509.load_pem_x509_certificate(environment.handed("ven.crt"))
    key = serialization.load_pem_private_key(environment.handed("ven.key"), None)
    authority = x509.load_pem_x509_certificate(environment.handed("ca.crt"))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == certificate.public_key()
    certificate.verify_directly_issued_by(authority)
    assert usage(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert timedelta(days=364) < certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=366)

    assert [entry["fingerprint"] for entry in environment.registered()] == [fingerprint(certificate)]
    assert fingerprint(certificate) in issued.output
    files = [*(environment.handover / NORTH).iterdir(), environment.variables / "openadr_vault.yml"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    encrypted = files[-1].read_text().startswith("$ANSIBLE_VAULT;")
    assert encrypted == (environment.name == "prod")
    assert "PRIVATE KEY" not in issued.output

    again = environment.run("--tags", "issue", "-e", f"ven={NORTH}")
    assert (again.status, again.count("changed")) == (0, 0), again.output
    assert x509.load_pem_x509_certificate(environment.handed("ven.crt")) == certificate


def test_a_certificate_is_renewed_listed_and_revoked(environment: Environment) -> None:
    """The authority stays the same; the old certificate counts until it is revoked."""
    assert environment.run("--tags", "issue", "-e", f"ven={NORTH}").status == 0
    authority, key = environment.handed("ca.crt"), environment.handed("ven.key")
    assert environment.run("--tags", "renew", "-e", f"ven={NORTH}").status == 0
    old, new = (entry["fingerprint"] for entry in environment.registered())
    assert environment.handed("ca.crt") == authority
    assert environment.handed("ven.key") != key
    assert fingerprint(x509.load_pem_x509_certificate(environment.handed("ven.crt"))) == new

    listed = environment.run()
    assert listed.count("changed") == 0
    assert old in listed.output
    assert f"{new}  365 days" in listed.output

    preview = environment.run("--tags", "revoke", "-e", f"ven={NORTH}", "--check")
    assert (preview.status, len(environment.registered())) == (0, 2)
    assert environment.run("--tags", "revoke", "-e", f"ven={NORTH}", "-e", f"fingerprint={old}").status == 0
    assert [entry["fingerprint"] for entry in environment.registered()] == [new]
    wrong = environment.run("--tags", "revoke", "-e", f"ven={NORTH}", "-e", f"fingerprint={old}")
    assert wrong.status != 0
    assert f"has no certificate {old}" in wrong.output
    assert environment.run("--tags", "revoke", "-e", f"ven={NORTH}").status == 0
    assert environment.registered() == []
    again = environment.run("--tags", "revoke", "-e", f"ven={NORTH}")
    assert (again.status, again.count("changed")) == (0, 0), again.output

    refused = environment.run("--tags", "issue", "-e", f"ven={NORTH}")
    assert refused.status != 0
    assert "holds a key" in refused.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("issue",), "no VEN is named"),
        (("issue", "-e", "ven=South"), "South is not a declared VEN"),
        (("issue", "-e", "ven=../North"), "../North is not a declared VEN"),
        (("renew", "-e", f"ven={LOCAL}"), "the deployment makes its certificate"),
        (("revoke", "-e", "ven=South"), "South is not a VEN"),
    ],
)
def test_a_wrong_name_is_refused(environment: Environment, arguments: tuple[str, ...], words: str) -> None:
    refused = environment.run("--tags", *arguments)
    assert refused.status != 0
    assert words in " ".join(refused.output.split())
    assert sorted(path.name for path in environment.variables.iterdir()) == ["main.yml"]


def test_an_authority_that_is_lost_is_not_replaced_silently(environment: Environment) -> None:
    assert environment.run("--tags", "issue", "-e", f"ven={NORTH}").status == 0
    (environment.variables / "openadr_vault.yml").unlink()
    refused = environment.run("--tags", "renew", "-e", f"ven={NORTH}")
    assert refused.status != 0
    assert "the authority that signed them is missing" in " ".join(refused.output.split())


def test_the_authoritys_key_is_not_written_unencrypted(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    refused = play(
        *("-i", environment.folder / "inventory", "playbooks/ven_certificates.yml", "--tags", "issue"),
        *("-e", f"ven={NORTH}"),
        timeout=300,
    )
    assert refused.status != 0
    assert "ANSIBLE_VAULT_PASSWORD_FILE is not set" in " ".join(refused.output.split())
    assert not (environment.variables / "openadr_vault.yml").exists()


# --- the deployment --------------------------------------------------------------------------------------------------


class Deployment:
    """Deploys the VTN and the VEN into a folder."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.stack = environment.folder / "openadr"
        secrets = yaml.safe_load((ROOT / "playbooks/vars/secrets.yml").read_text())["secrets_declared"]
        images = yaml.safe_load((ROOT / "playbooks/vars/versions.yml").read_text())["versions_images"]
        roles = environment.folder / "roles"
        shutil.copytree(ROOT / "tests/templates/roles", roles)
        (roles / "openadr").symlink_to(ROOT / "roles/openadr")
        self.given = {
            **{name: f"{name}-0123456789-0123456789-0123456789" for name in secrets},
            "images_references": {name: f"example/{name}:1" for name in images},
            "rendered_path": str(environment.folder),
            "openadr_stack_path": str(self.stack),
        }

    def run(self, **different: Any) -> dict[str, Any]:
        """Deploy; what the containers would get."""
        run = self.environment.run(
            *("-e", json.dumps(self.given | different)),
            playbook="tests/unit/playbooks/openadr_certificates.yml",
        )
        assert run.status == 0, run.output
        assert "PRIVATE KEY" not in run.output
        made: dict[str, Any] = json.loads((self.environment.folder / "openadr.json").read_text())
        (self.stack / "secrets").mkdir(parents=True, exist_ok=True)
        for name, value in made["secrets"].items():
            (self.stack / "secrets" / name).write_text(value)
        return made

    def accepted(self, service: str, text: str) -> None:
        """The service itself accepts its settings."""
        path = self.environment.folder / f"{service}.yml"
        path.write_text(text)
        program = f"import sys; from cariflex.{service}.main import cli; sys.argv = ['x', 'check']; cli()"
        environment = os.environ | {"CARIFLEX_CONFIG": str(path), "PYTHONPATH": str(ROOT / "files/services/src")}
        done = subprocess.run([python(), "-c", program], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def deployment(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    made = Deployment(environment)
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", f"{environment.folder}/roles:{ROOT}/roles")
    return made


def certificates(made: dict[str, Any]) -> tuple[x509.Certificate, x509.Certificate]:
    """Of the VTN and of the VEN."""
    texts = (made["secrets"][f"openadr_{side}_certificate"] for side in ("vtn", "ven"))
    vtn, ven = (x509.load_pem_x509_certificate(text.encode()) for text in texts)
    return vtn, ven


def test_the_deployment_gives_both_sides_certificates_and_keeps_them(deployment: Deployment) -> None:
    assert deployment.environment.run("--tags", "issue", "-e", f"ven={NORTH}").status == 0
    made = deployment.run()
    vtn, ven = certificates(made)
    authority = x509.load_pem_x509_certificate(made["secrets"]["openadr_ca"].encode())
    for certificate, side, purpose in (
        (vtn, "vtn", ExtendedKeyUsageOID.SERVER_AUTH),
        (ven, "ven", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        certificate.verify_directly_issued_by(authority)
        assert usage(certificate) == [purpose]
        key = serialization.load_pem_private_key(made["secrets"][f"openadr_{side}_key"].encode(), None)
        assert key.public_key() == certificate.public_key()
    names = vtn.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["192.168.240.10"]

    settings = yaml.safe_load(made["files"]["conf/vtn.yml"])
    assert settings["vens"][LOCAL]["fingerprints"] == [fingerprint(ven)]
    assert settings["vens"][NORTH]["fingerprints"] == [deployment.environment.registered()[0]["fingerprint"]]
    client = yaml.safe_load(made["files"]["conf/ven.yml"])
    assert client["tls"]["vtn_fingerprint"] == fingerprint(vtn)
    assert client["vtn_url"].startswith("https://192.168.240.10:8080/")

    for service in ("vtn", "ven"):
        deployment.accepted(service, made["files"][f"conf/{service}.yml"])

    assert deployment.run() == made

    assert "ports" not in yaml.safe_load(made["files"]["compose.yml"])["services"]["openadr-vtn"]
    renamed = deployment.run(openadr_vtn_names=["vtn.example.org"], openadr_vtn_published_port=8443)
    assert yaml.safe_load(renamed["files"]["compose.yml"])["services"]["openadr-vtn"]["ports"] == ["8443:8080"]
    again_vtn, again_ven = certificates(renamed)
    assert again_ven == ven
    assert again_vtn != vtn
    assert again_vtn.public_key() == vtn.public_key()


def test_certificates_that_end_soon_are_damaged_or_of_another_authority_are_replaced(deployment: Deployment) -> None:
    vtn, ven = certificates(deployment.run(openadr_certificate_days=59))
    made = deployment.run()
    assert {fingerprint(vtn), fingerprint(ven)}.isdisjoint(map(fingerprint, certificates(made)))
    assert all(c.not_valid_after_utc > datetime.now(UTC) + timedelta(days=300) for c in certificates(made))

    (deployment.environment.variables / "openadr_vault.yml").unlink()
    (deployment.stack / "secrets/openadr_vtn_certificate").write_text("nonsense")
    other = deployment.run()
    authority = x509.load_pem_x509_certificate(other["secrets"]["openadr_ca"].encode())
    for certificate in certificates(other):
        certificate.verify_directly_issued_by(authority)


def test_openadr_is_not_published_without_tls(deployment: Deployment) -> None:
    refused = deployment.environment.run(
        *("-e", json.dumps(deployment.given | {"openadr_vtn_published_port": 8443, "openadr_tls": False})),
        playbook="tests/unit/playbooks/openadr_certificates.yml",
    )
    assert refused.status != 0
    assert "anybody could speak as a VEN" in " ".join(refused.output.split())


def test_without_tls_nothing_is_made(deployment: Deployment) -> None:
    made = deployment.run(openadr_tls=False)
    assert not any(name.startswith(("openadr_vtn", "openadr_ven", "openadr_ca")) for name in made["secrets"])
    assert "tls" not in yaml.safe_load(made["files"]["conf/vtn.yml"])
    assert yaml.safe_load(made["files"]["conf/ven.yml"])["vtn_url"].startswith("http://")
    assert not (deployment.environment.variables / "openadr_vault.yml").exists()
