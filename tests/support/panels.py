"""The dashboard's queries on a running system, asked as `grafana_ro`: the role that Grafana has."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.integration.grafana.conftest import expand
from tests.support.stacks import ROOT

# Over the network, as Grafana comes, in the container flexmeasures-db.
PSQL = (
    "PGPASSWORD=$(cat /run/secrets/grafana_ro_password)"
    " exec psql -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -U grafana_ro flexmeasures"
)


def without_rows(psql: Callable[[str], str]) -> set[str]:
    """Titles of the panels that show nothing, over the time that the dashboard begins with.

    Args:
        psql: what `PSQL` prints for a statement.
    """
    dashboard = json.loads((ROOT / "files/grafana/dashboards/cariflex.json").read_text(encoding="utf-8"))
    now, day = datetime.now(UTC), timedelta(days=1)
    empty = set()
    for panel in dashboard["panels"]:
        shortest = timedelta(minutes=int(panel.get("interval", "1m").removesuffix("m")))
        sql = expand(panel["targets"][0]["rawSql"], now - day, now + day, shortest)
        if int(psql(f"SELECT count(*) FROM ({sql}) AS shown")) == 0:  # noqa: S608  a query of ours
            empty.add(panel["title"])
    return empty
