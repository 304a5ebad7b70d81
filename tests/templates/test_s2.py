"""The S2 part of the stack openadr: a token for each device, and TLS where there is a certificate."""

import json
from pathlib import Path

import yaml

from tests.support.stacks import Stack, render

IMAGES = yaml.safe_load((Path(__file__).parents[2] / "playbooks/vars/versions.yml").read_text())["versions_images"]


def openadr(folder: Path, **variables: object) -> Stack:
    """The stack with these variables."""
    folder.mkdir()
    return render("dev", folder, images_references=dict.fromkeys(IMAGES, "example:1"), **variables)["openadr"]


def test_a_new_version_gives_one_device_another_token_and_starts_the_cem_anew(tmp_path: Path) -> None:
    """The CEM's container is made anew, which ends the open connection of whoever had the old token."""
    before = openadr(tmp_path / "before")
    after = openadr(tmp_path / "after", topology_overrides={"s2_resources": {"ev_01": {"token_version": 2}}})
    old, new = (json.loads(stack.secrets["s2_tokens"]) for stack in (before, after))
    assert {name for name in old if old[name] != new[name]} == {"ev_01"}
    assert len(set(new.values())) == len(new) == 10
    labels = [stack.services["openadr-ven"]["labels"]["cariflex.config"] for stack in (before, after)]
    assert labels[0] != labels[1]
    assert "token_version" not in after.files["conf/s2.yml"]


def test_with_a_certificate_the_port_speaks_tls_and_health_is_elsewhere(tmp_path: Path) -> None:
    texts = {"openadr_s2_certificate": "CERT", "openadr_s2_key": "KEY", "openadr_s2_ca": "CA"}
    stack = openadr(tmp_path / "tls", **texts)
    settings = yaml.safe_load(stack.files["conf/s2.yml"])
    assert (settings["tls_key"], settings["health_port"]) == ("/run/secrets/s2_key", 8766)
    assert "http://127.0.0.1:8766/health" in stack.services["openadr-ven"]["healthcheck"]["test"]
    assert {"s2_certificate", "s2_key"} <= set(stack.services["openadr-ven"]["secrets"])
    simulator = yaml.safe_load(stack.files["conf/s2-simulator.yml"])
    assert (simulator["url"][:6], simulator["ca"]) == ("wss://", "/run/secrets/s2_ca")
    assert "s2_key" not in stack.services["openadr-simulator"]["secrets"]
    assert stack.secrets["s2_key"] == "KEY"
    assert "KEY" not in "".join(stack.files.values())
