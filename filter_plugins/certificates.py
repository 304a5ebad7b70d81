"""What the proxy says about the certificates that it serves."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# traefik_tls_certs_not_after{cn="a.example",sans="a.example,b.example",serial="123"} 1.7e+09
_METRIC = re.compile(r"^traefik_tls_certs_not_after\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def served_certificates(metrics: str) -> list[dict[str, Any]]:
    """Every certificate in Traefik's metrics (Prometheus' text form).

    Returns:
        For each: `names` it is for (list of text), its `serial` number as text, and its end, `not_after`, in seconds
        since 1970.
    """
    found = []
    for match in _METRIC.finditer(metrics):
        labels = dict(_LABEL.findall(match["labels"]))
        names = [name for name in labels.get("sans", "").split(",") if name] or [labels.get("cn", "")]
        found.append({"names": names, "serial": labels.get("serial", ""), "not_after": int(float(match["value"]))})
    return found


class FilterModule:
    """The filters of this file, in the form in which Ansible asks for them."""

    def filters(self) -> dict[str, Callable[[str], list[dict[str, Any]]]]:
        """Name -> filter."""
        return {"served_certificates": served_certificates}
