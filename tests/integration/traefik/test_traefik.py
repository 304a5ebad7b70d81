"""Certificates come from an ACME server, are kept and renewed; what strangers see of the proxy is what it should be."""

from __future__ import annotations

import contextlib
import json
import re
import time
from functools import partial
from pathlib import Path

import pytest

from filter_plugins.certificates import served_certificates
from tests.integration.traefik.conftest import DOMAINS, Proxy
from tests.support.host import eventually

pytestmark = pytest.mark.docker
FLEXMEASURES, GRAFANA = DOMAINS


def serials(proxy: Proxy) -> dict[str, str]:
    """Name -> number of the certificate that holds for it; waits until each has one."""
    return {domain: str(eventually(partial(proxy.authority.serial, domain), 60)) for domain in DOMAINS}


def test_every_name_gets_a_certificate_that_chains_to_the_authority(proxy: Proxy) -> None:
    assert len(set(serials(proxy).values())) == len(DOMAINS)
    assert "200" in proxy.authority.curl(f"-o /dev/null -w '%{{http_code}}' https://{GRAFANA}/")


def test_what_the_authority_gave_is_kept_from_others(proxy: Proxy) -> None:
    serials(proxy)
    assert proxy.store().split() == ["600", "65532", "/stack/acme/acme.json"]


def test_a_redeployment_keeps_the_certificates_and_a_renewal_replaces_them(proxy: Proxy, tmp_path: Path) -> None:
    first = serials(proxy)
    # the digest of its settings changes, so the container is replaced
    proxy.deploy(tmp_path / "redeployed", traefik_log_level="WARN")
    assert serials(proxy) == first

    # what playbooks/renew_certificates.yml does: for so long a life, each is due. Again, where pebble came back before
    # port 80 was open
    for days in (366, 367, 368):
        proxy.deploy(tmp_path / f"renewing-{days}", traefik_acme_certificate_days=days)
        with contextlib.suppress(AssertionError):
            eventually(lambda: not set(serials(proxy).values()) & set(first.values()), 30)
            break
    renewed = serials(proxy)
    assert not set(renewed.values()) & set(first.values())
    proxy.deploy(tmp_path / "renewed")
    assert serials(proxy) == renewed


def test_the_metrics_say_when_certificates_end(proxy: Proxy) -> None:
    served = serials(proxy)
    metrics = proxy.authority.shell(f"curl -sSf http://{proxy.name}:8083/metrics")
    ends = {name: one for one in served_certificates(metrics) for name in one["names"]}
    assert ends.keys() == set(DOMAINS)
    for domain, serial in served.items():
        assert int(ends[domain]["serial"]) == int(serial, 16)
        assert 85 < (ends[domain]["not_after"] - time.time()) / 86400 < 91


def test_plain_http_leads_to_https(proxy: Proxy) -> None:
    answer = proxy.authority.curl(f"-I http://{FLEXMEASURES}/health")
    assert re.search(r"^HTTP/1.1 30[18]", answer)
    assert f"location: https://{FLEXMEASURES}/health" in answer.lower()


def test_answers_carry_what_protects_browsers_and_not_which_software_made_them(proxy: Proxy) -> None:
    serials(proxy)
    answer = proxy.authority.curl(f"-D - -o /dev/null https://{FLEXMEASURES}/").lower()
    for header in (
        "strict-transport-security: max-age=31536000",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: strict-origin-when-cross-origin",
        "permissions-policy: camera=(), geolocation=(self)",
    ):
        assert header in answer
    assert "server:" not in answer  # of Python's http.server


def test_a_stranger_sees_nothing(proxy: Proxy) -> None:
    serials(proxy)
    assert "404" in proxy.authority.curl(
        f"-o /dev/null -w '%{{http_code}}' https://{FLEXMEASURES}/cariflex/v1/topology"
    )
    refused = proxy.authority.shell(
        f"curl -skS --connect-to ::{FLEXMEASURES}:443 https://example.org/ 2>&1", check=False
    )
    assert "unrecognized name" in refused


def test_the_access_log_keeps_no_secret(proxy: Proxy) -> None:
    serials(proxy)
    for path in ("/search?token=s3cret-query", "/reset/s3cret-path"):
        headers = (
            "-H 'Authorization: Bearer s3cret-header' -H 'Cookie: session=s3cret-cookie' -H 'Referer: https://s3cret/'"
        )
        proxy.authority.curl(f"-o /dev/null {headers} 'https://{FLEXMEASURES}{path}'")
    eventually(lambda: any(line["RequestPath"].startswith("/search") for line in proxy.logged()), 10)
    assert "s3cret" not in json.dumps(proxy.logged())


def test_one_client_cannot_take_everything(proxy: Proxy) -> None:
    serials(proxy)
    ask = f"-o /dev/null -w '%{{http_code}}\\n' 'https://{FLEXMEASURES}/?[1-300]'"
    codes = proxy.authority.curl(ask).split()
    assert "200" in codes[:40]
    assert codes.count("429") > 50
    eventually(lambda: "200" in proxy.authority.curl(f"-o /dev/null -w '%{{http_code}}' https://{FLEXMEASURES}/"), 20)


def test_a_judge_of_tls_finds_nothing_above_low(proxy: Proxy) -> None:
    if proxy.variables["traefik_acme_challenge"] != "http":
        pytest.skip("judged once")
    serials(proxy)
    judge = "testssl --quiet --color 0 --add-ca /pki/root.crt --overwrite --jsonfile /tmp/judged.json"
    proxy.authority.shell(f"{judge} https://{FLEXMEASURES}/ >/tmp/judged.txt", check=False, timeout=300)
    judged = json.loads(proxy.authority.shell("cat /tmp/judged.json"))
    assert len(judged) > 100
    # the first is about the judge's own OpenSSL, the second about pebble, which names no list of revoked certificates
    judged = [one for one in judged if one["id"].split()[0] not in ("engine_problem", "cert_revocation")]
    found = [one for one in judged if one["severity"] in ("WARN", "MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    assert [f"{one['id']}: {one['finding']}" for one in found] == []
