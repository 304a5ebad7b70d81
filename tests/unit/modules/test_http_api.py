"""The client under all our modules' clients: one TLS context, which does not loosen what each call has to hold to."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import http_api
from ansible.module_utils.http_api import ApiError, HttpApi

from .conftest import Reply, Server

EXAMPLE = "https://ipam.example.org"


@pytest.fixture
def secured(certificate: Path) -> Iterator[Server]:
    """An HTTPS server on this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = Server(context)
    made.replies = [Reply(body={"well": True})]
    yield made
    made.close()


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How each TLS context was made."""
    made: list[dict[str, Any]] = []
    really = http_api.make_context

    def make(**options: Any) -> Any:
        made.append(options)
        return really(**options)

    monkeypatch.setattr(http_api, "make_context", make)
    monkeypatch.setattr("ansible.module_utils.urls.make_context", make)
    return made


def test_all_calls_of_a_client_share_one_tls_context(
    secured: Server, certificate: Path, contexts: list[dict[str, Any]]
) -> None:
    client = HttpApi(secured.url, "token", example=EXAMPLE, ca_path=str(certificate))
    assert [client.call("GET", "/").status for _ in range(3)] == [200] * 3
    assert contexts == [{"cafile": str(certificate), "validate_certs": True}]


@pytest.mark.parametrize("trust", [{}, {"ca_path": True}, {"validate_certs": False}])
def test_a_certificate_is_checked_unless_told_otherwise(
    secured: Server, certificate: Path, trust: dict[str, Any]
) -> None:
    if "ca_path" in trust:
        trust = {"ca_path": str(certificate)}
    client = HttpApi(secured.url, "token", example=EXAMPLE, **trust)
    if trust:
        assert client.call("GET", "/").json() == {"well": True}
        return
    with pytest.raises(ApiError, match=r"certificate is not trusted .*set ca_path"):
        client.call("GET", "/")
    assert not secured.received


def test_a_certificate_of_another_name_is_not_trusted(secured: Server, certificate: Path) -> None:
    url = secured.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ApiError, match=r"certificate is not trusted"):
        HttpApi(url, "token", example=EXAMPLE, ca_path=str(certificate)).call("GET", "/")


def test_a_redirect_is_not_followed_by_https_either(secured: Server, certificate: Path) -> None:
    secured.replies = [Reply(302, "", {"Location": f"{secured.url}/login/"})]
    client = HttpApi(secured.url, "token", example=EXAMPLE, ca_path=str(certificate))
    assert client.call("GET", "/api/").status == 302
    assert [received.path for received in secured.received] == ["/api/"]


@pytest.mark.parametrize("token", ["s3cret\n", "s3 cret", "s3cr€t", "s3cret\x00"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_told(token: str) -> None:
    with pytest.raises(ApiError, match=r"^token has a blank, a line end or .* copy it once more\.$"):
        HttpApi(EXAMPLE, token, example=EXAMPLE)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_path_without_certificates_is_said_before_any_call(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ApiError, match=r"ca_path = .*ca.pem.* give a file in PEM form"):
        HttpApi(EXAMPLE, "token", example=EXAMPLE, ca_path=str(path))
