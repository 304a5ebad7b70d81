"""What the proxy's metrics say about its certificates."""

from __future__ import annotations

from filter_plugins.certificates import served_certificates

METRICS = """# HELP traefik_tls_certs_not_after Certificate expiration timestamp
# TYPE traefik_tls_certs_not_after gauge
traefik_tls_certs_not_after{cn="a.example",sans="a.example,b.example",serial="17"} 1.7983008e+09
traefik_tls_certs_not_after{cn="c.example",sans="",serial="18"} 1.8e+09
traefik_entrypoint_requests_total{code="200",entrypoint="web"} 5
"""


def test_each_certificate_with_its_names_and_end() -> None:
    assert served_certificates(METRICS) == [
        {"names": ["a.example", "b.example"], "serial": "17", "not_after": 1798300800},
        {"names": ["c.example"], "serial": "18", "not_after": 1800000000},
    ]


def test_no_certificate_at_all() -> None:
    assert served_certificates("") == []
