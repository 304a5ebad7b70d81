"""Grafana's panels: what to ask for all of them at once (`/api/ds/query`), and what was answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_INTERVAL_MS = 900_000  # a point for a quarter of an hour, as a screen shows two days

Panel = dict[str, Any]


def panel_queries(panels: list[Panel]) -> list[dict[str, Any]]:
    """The query of each panel, called by the panel's id."""
    return [
        {**panel["targets"][0], "refId": str(panel["id"]), "intervalMs": _INTERVAL_MS, "maxDataPoints": 200}
        for panel in panels
    ]


def panels_failed(answer: dict[str, Any], panels: list[Panel]) -> list[str]:
    """Title and reason of each panel whose query failed; what is wrong with all of them once.

    Args:
        answer: of the module `uri`.
        panels: as in the dashboard.
    """
    body = answer.get("json")
    body = body if isinstance(body, dict) else {}
    results = body.get("results") or {}
    if not results:
        return [f"Grafana answered {answer['status']}: {body.get('message') or 'no results'}"]
    found = []
    for panel in panels:
        result = results.get(str(panel["id"]), {"error": "no answer"})
        if result.get("error"):
            found.append(f"{panel['title']}: {result['error']}")
    return found


def panels_empty(answer: dict[str, Any], panels: list[Panel]) -> list[str]:
    """Titles of the panels that were answered without a row."""
    results = answer["json"]["results"]
    return [panel["title"] for panel in panels if not _rows(results[str(panel["id"])])]


def _rows(result: dict[str, Any]) -> int:
    """A frame has its columns one after the other; one without columns has no rows."""
    columns = [(frame.get("data") or {}).get("values") for frame in result.get("frames") or []]
    return sum(len(values[0]) for values in columns if values)


class FilterModule:
    """The filters of this file, in the form in which Ansible asks for them."""

    def filters(self) -> dict[str, Callable[..., list[Any]]]:
        """Name -> filter."""
        return {"panel_queries": panel_queries, "panels_failed": panels_failed, "panels_empty": panels_empty}
