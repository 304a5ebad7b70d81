"""The committed dashboards: equal to what the code makes, sound in form, and showing every documented sensor."""

import copy
import json
import re
import runpy
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "files/grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
COLUMNS = 24
Dashboard = dict[str, Any]


def load(path: str) -> Any:
    """The content of one of the project's YAML files."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


TOPOLOGY = load("playbooks/vars/topology.yml")["topology_declared"]
UID = load("roles/grafana/defaults/main.yml")["grafana_datasource_uid"]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    """Each committed dashboard."""
    content: Dashboard = json.loads(request.param.read_text(encoding="utf-8"))
    return content


def datasources(part: Any) -> Iterator[dict[str, Any]]:
    """Every reference to a datasource, at any depth."""
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        for entry in part.values():
            yield from datasources(entry)
    elif isinstance(part, list):
        for entry in part:
            yield from datasources(entry)


def faults(dashboard: Dashboard) -> set[str]:
    """What keeps Grafana from showing a dashboard as meant."""
    found = set()
    panels = dashboard["panels"]
    if not isinstance(dashboard.get("schemaVersion"), int):
        found.add("no schemaVersion")
    if {source.get("uid") for source in datasources(dashboard)} != {UID}:
        found.add("another datasource")
    if any(not target.get("datasource") for panel in panels for target in panel["targets"]):
        found.add("a query without a datasource")
    ids = [panel.get("id") for panel in panels]
    if len(set(ids)) < len(ids) or not all(isinstance(id_, int) and id_ > 0 for id_ in ids):
        found.add("panel ids")
    places = [panel["gridPos"] for panel in panels]
    if any(place["x"] < 0 or place["x"] + place["w"] > COLUMNS or min(place["w"], place["h"]) < 1 for place in places):
        found.add("a panel outside the grid")
    for one, other in combinations(places, 2):
        if all(one[a] < other[a] + other[b] and other[a] < one[a] + one[b] for a, b in (("x", "w"), ("y", "h"))):
            found.add("panels overlap")
    return found


def test_there_is_a_dashboard() -> None:
    assert [path.name for path in FILES] == ["cariflex.json"]


def test_committed_dashboards_are_what_the_code_makes() -> None:
    # needs files/grafana/requirements.txt, which ./bootstrap.sh test installs
    made = runpy.run_path(str(GRAFANA / "make_dashboards.py"))["dashboards"]()

    assert made == {path.name: path.read_text(encoding="utf-8") for path in FILES}, (
        "stale, type: .venv/bin/python files/grafana/make_dashboards.py"
    )


def test_form(dashboard: Dashboard) -> None:
    assert faults(dashboard) == set()


def _edit(path: str, value: Any) -> Callable[[Dashboard], None]:
    def edit(dashboard: Dashboard) -> None:
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        part: Any = dashboard
        for step in way:
            part = part[step]
        if value is None:
            del part[last]
        else:
            part[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (_edit("schemaVersion", None), "no schemaVersion"),
        (_edit("panels.2.datasource.uid", "cariflex-postgres"), "another datasource"),
        (_edit("panels.3.targets.0.datasource.uid", "-- Mixed --"), "another datasource"),
        (_edit("panels.3.targets.0.datasource", None), "a query without a datasource"),
        (_edit("panels.1.id", 1), "panel ids"),
        (_edit("panels.1.id", None), "panel ids"),
        (_edit("panels.1.gridPos.w", 13), "a panel outside the grid"),
        (_edit("panels.1.gridPos.x", 11), "panels overlap"),
        (_edit("panels.2.gridPos.y", 7), "panels overlap"),
    ],
)
def test_every_fault_of_form_is_found(edit: Callable[[Dashboard], None], fault: str, dashboard: Dashboard) -> None:
    broken = copy.deepcopy(dashboard)
    edit(broken)
    assert fault in faults(broken)


def test_every_sensor_is_shown() -> None:
    shown = {
        int(number)
        for path in FILES
        for ids in re.findall(r"sensor_id IN \(([\d, ]+)\)", path.read_text(encoding="utf-8"))
        for number in ids.split(",")
    }
    # some take plans, and are shown by what FlexMeasures' scheduler says
    plans = {resource["plan_sensor"] for resource in TOPOLOGY["s2_resources"].values()}
    assert shown == {sensor["id"] for name, sensor in TOPOLOGY["sensors"].items() if name not in plans}


def test_time_zone_and_window(dashboard: Dashboard) -> None:
    assert dashboard["timezone"] == TOPOLOGY["site"]["timezone"] == "America/Martinique"
    # prices and load control are announced a day ahead
    assert dashboard["time"] == {"from": "now-24h", "to": "now+24h"}


def test_nobody_edits_in_grafana_what_the_next_deployment_would_undo(dashboard: Dashboard) -> None:
    assert dashboard["editable"] is False


@pytest.mark.parametrize(
    ("title", "unit"),
    [
        ("PV production", "kwatt"),
        ("Battery state of charge", "kwatth"),
        ("EV charging", "kwatth"),
        ("Prices", "EUR/MWh"),
        ("Load-control signal", "percent"),
        ("Demand-response signal", "none"),
        ("Weather", "Wm2"),
    ],
)
def test_units_and_legends(title: str, unit: str) -> None:
    panels = {panel["title"]: panel for panel in json.loads(FILES[0].read_text(encoding="utf-8"))["panels"]}
    panel = panels[title]
    assert panel["fieldConfig"]["defaults"]["unit"] == unit
    assert panel["options"]["legend"]["showLegend"] is True
    assert panel["description"]


def test_what_can_be_good_or_bad_has_colours_for_it() -> None:
    """Of a panel: from which value on what it shows is orange or red, in all that it shows or in its columns."""
    panels = {panel["title"]: panel for panel in json.loads(FILES[0].read_text(encoding="utf-8"))["panels"]}

    def steps(panel: str, column: str = "") -> list[tuple[float | None, str]]:
        config = panels[panel]["fieldConfig"]
        found = [config["defaults"].get("thresholds")]
        if column:
            (override,) = (o for o in config["overrides"] if o["matcher"]["options"] == column)
            found = [setting["value"] for setting in override["properties"] if setting["id"] == "thresholds"]
        return [(step["value"], step["color"]) for step in found[0]["steps"]]

    assert steps("Grid net power") == [(None, "green"), (0, "orange")]
    assert steps("Load-control signal") == [(None, "red"), (50, "orange"), (100, "green")]
    assert steps("Demand-response signal") == [(None, "green"), (1, "yellow"), (2, "orange"), (3, "red")]
    assert steps("S2 instruction log", "Accepted after") == [(None, "green"), (5, "orange"), (30, "red")]
    assert steps("Job queue and tasks", "Failed") == [(None, "green"), (1, "orange"), (10, "red")]
    assert steps("Data freshness", "Intervals missing") == [(None, "green"), (3, "orange"), (12, "red")]
    assert steps("Container health", "Days left") == [(None, "red"), (7, "orange"), (20, "green")]
    for signal in ("Load-control signal", "Demand-response signal"):
        assert panels[signal]["fieldConfig"]["defaults"]["color"]["mode"] == "thresholds"


def test_savings_are_in_money_energy_and_power() -> None:
    (tasks,) = (p for p in json.loads(FILES[0].read_text(encoding="utf-8"))["panels"] if p["id"] == 12)
    units = {
        override["matcher"]["options"]: setting["value"]
        for override in tasks["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if setting["id"] == "unit" and override["matcher"]["options"].startswith("Saves")
    }
    assert units == {"Saves": "currencyEUR", "Saves energy": "kwatth", "Saves peak": "kwatt"}


def test_weather_has_a_unit_for_each_quantity() -> None:
    (weather,) = (p for p in json.loads(FILES[0].read_text(encoding="utf-8"))["panels"] if p["title"] == "Weather")
    units = {
        override["matcher"]["options"]: setting["value"]
        for override in weather["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if setting["id"] == "unit"
    }
    assert units == {"temperature": "celsius", "wind speed": "velocityms"}


def test_panels_keep_the_ids_that_links_name() -> None:
    panels = json.loads(FILES[0].read_text(encoding="utf-8"))["panels"]
    assert {panel["id"]: panel["title"] for panel in panels} == {
        1: "PV production",
        2: "Battery state of charge",
        3: "EV charging",
        4: "Grid net power",
        5: "Prices",
        6: "Load-control signal",
        7: "Demand-response signal",
        8: "Weather",
        9: "Schedule against actual",
        10: "OpenADR events and opts",
        11: "S2 instruction log",
        12: "Job queue and tasks",
        13: "Data freshness",
        14: "Container health",
    }
    assert len(panels) == 14


def test_links_lead_to_panels_that_exist_and_to_flexmeasures() -> None:
    dashboard = json.loads(FILES[0].read_text(encoding="utf-8"))
    targets = {panel["id"]: panel["title"] for panel in dashboard["panels"]}
    links = [link for panel in dashboard["panels"] for link in panel.get("links", [])]
    assert all(panel.get("links") for panel in dashboard["panels"])
    for link in links:
        found = re.fullmatch(r"/d/cariflex/cariflex-ems\?viewPanel=(\d+)&\$\{__url_time_range\}", link["url"])
        assert found is not None
        assert targets[int(found[1])] == link["title"]
    # the role grafana puts this host's address in its place
    assert [link["url"] for link in dashboard["links"]] == ["https://flexmeasures.invalid/"]
