"""The FlexMeasures modules on a real FlexMeasures, through our plugin and through its own API."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from module_utils.drift_rules import drift_lines, topology_drift
from tests.unit.modules.conftest import RunModule, run_module  # noqa: F401 - a fixture

from .conftest import SECRETS, Stack

pytestmark = pytest.mark.docker

OPERATOR = "admin@digitribe.fr"
Run = Callable[..., dict[str, Any]]


@pytest.fixture(params=["plugin", "api"])
def run(
    request: pytest.FixtureRequest,
    stack: Stack,
    topology: dict[str, Any],
    passwords: dict[str, str],
    run_module: RunModule,  # noqa: F811 - the fixture
) -> Run:
    """Run a module one way, on the declared topology."""
    assert topology
    way: dict[str, Any] = {"email": OPERATOR, "password": passwords[OPERATOR]}
    if request.param == "plugin":
        way = {"token": SECRETS["flexmeasures_topology_token"]}

    def run(module: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        account = {} if module == "flexmeasures_topology" else {"account": "Cariflex"}
        given = {"url": stack.url, "host_header": "server", **way, **account, **options}
        return run_module(module, given, check=check, diff=True)

    return run


def test_an_asset_and_its_sensor_live_and_go(stack: Stack, run: Run) -> None:
    battery = {"name": "Bat_77", "type": "battery", "parent": "Cariflex", "flex_model": {"soc-max": "100 kWh"}}
    assert run("flexmeasures_asset", check=True, **battery)["changed"] is True
    made = run("flexmeasures_asset", **battery)
    assert made["asset"]["latitude"] == pytest.approx(14.6415), made
    assert run("flexmeasures_asset", **battery)["changed"] is False
    assert run("flexmeasures_asset", id=made["asset"]["id"], name="Bat_78")["changed"] is True
    assert run("flexmeasures_asset", name="Bat_78", flex_context={"site-power-capacity": "50 apples"})["failed"]

    power = {"name": "bat_78", "asset": "Bat_78", "unit": "kW", "resolution": "PT60M"}
    id_ = run("flexmeasures_sensor", **power)["sensor"]["id"]
    stored = stack.sql("SELECT id, unit, event_resolution FROM sensor WHERE name = 'bat_78'")
    assert stored == [[str(id_), "kW", "01:00:00"]]
    assert run("flexmeasures_sensor", **power)["changed"] is False
    changed = run("flexmeasures_sensor", **{**power, "unit": "MW"}, attributes={"a": 1})
    assert changed["diff"]["before"] == {"sensors.bat_78": {"unit": "kW", "attributes": {}}}
    assert "is taken by the sensor bat_78" in run("flexmeasures_sensor", id=id_, name="power")["msg"]
    assert run("flexmeasures_sensor", id=id_, name="power", rename=True)["changed"] is True
    assert "is no unit" in run("flexmeasures_sensor", id=id_, name="power", unit="W/m2")["msg"]

    stack.sql(
        "INSERT INTO data_source (name, type) VALUES ('test_modules', 'script');"
        "INSERT INTO timed_belief"
        " (event_start, belief_horizon, cumulative_probability, event_value, sensor_id, source_id)"
        " SELECT now(), '0', 0.5, 1, sensor.id, data_source.id FROM sensor, data_source"
        " WHERE sensor.name = 'power' AND data_source.name = 'test_modules'"
    )
    assert "in which the sensor has data" in run("flexmeasures_sensor", id=id_, name="power", unit="kW")["msg"]
    (shown,) = run("flexmeasures_info", asset="Bat_78", with_data=True)["sensors"]
    assert (shown["id"], shown["data"], shown["attributes"]) == (id_, True, {"a": 1})
    assert "has data" in run("flexmeasures_asset", name="Bat_78", state="absent")["msg"]
    assert run("flexmeasures_sensor", id=id_, state="absent", force=True)["changed"] is True
    assert run("flexmeasures_asset", name="Bat_78", state="absent")["changed"] is True
    assert run("flexmeasures_asset", name="Bat_78", state="absent")["changed"] is False
    assert stack.sql("SELECT count(*) FROM generic_asset WHERE name LIKE 'Bat_7%'") == [["0"]]
    stack.sql("DELETE FROM data_source WHERE name = 'test_modules'")


def test_the_whole_topology_again_renamed_swapped_and_purged(stack: Stack, run: Run, topology: dict[str, Any]) -> None:
    whole = {**json.loads(json.dumps(topology)), "site": {"timezone": topology["timezone"]}}
    again = run("flexmeasures_topology", topology=whole)
    assert (again["failed"], again["changed"]) == (False, False), again
    run("flexmeasures_asset", name="Old", type="battery", parent="Cariflex")
    run("flexmeasures_sensor", name="old", asset="Old", unit="kW", resolution="PT1H")
    assert [asset["name"] for asset in run("flexmeasures_topology", topology=whole)["undeclared"]["assets"]] == ["Old"]
    purged = run("flexmeasures_topology", topology=whole, purge=True)
    assert [(each["action"], each["path"]) for each in purged["changes"]] == [
        ("delete", "sensors.old"),
        ("delete", "assets.Old"),
    ]
    whole["sensors"]["price_for_use"] = whole["sensors"].pop("consumption_price")
    assert "is taken by the sensor consumption_price" in run("flexmeasures_topology", topology=whole)["msg"]
    drift = topology_drift(run("flexmeasures_topology", topology=whole, rename=True, check=True)["changes"])
    assert drift_lines(drift) == [
        "FlexMeasures sensors.price_for_use: declared name = price_for_use, found name = consumption_price"
    ]
    renamed = run("flexmeasures_topology", topology=whole, rename=True)
    assert renamed["diff"]["after"] == {"sensors.price_for_use": {"name": "price_for_use"}}
    assert stack.sql("SELECT name FROM sensor WHERE id = 84") == [["price_for_use"]]
    whole["sensors"]["consumption_price"] = whole["sensors"].pop("price_for_use")
    assert run("flexmeasures_topology", topology=whole, rename=True)["changed"] is True
    one, other = whole["sensors"]["consumption_price"], whole["sensors"]["production_price"]
    for swapped in ((other, one), (one, other)):  # there and back
        whole["sensors"] |= dict(zip(("consumption_price", "production_price"), swapped, strict=True))
        done = run("flexmeasures_topology", topology=whole, rename=True)
        assert not done["failed"], done["msg"]
        ids = stack.sql("SELECT id FROM sensor WHERE id IN (84, 85) ORDER BY name")
        assert ids == [[str(sensor["id"])] for sensor in swapped]
        assert run("flexmeasures_topology", topology=whole, rename=True)["changed"] is False


@pytest.mark.parametrize("run", ["api"], indirect=True)
def test_an_id_that_cannot_be_had_leaves_nothing_behind(stack: Stack, run: Run) -> None:
    result = run("flexmeasures_sensor", name="far", id=900, asset="Bat_01", unit="kW", resolution="PT1H")
    assert "id = 900: was not given" in result["msg"]
    taken = run("flexmeasures_sensor", name="far", id=84, asset="Bat_01", unit="kW", resolution="PT1H")
    assert "is taken by the sensor consumption_price" in taken["msg"]
    assert stack.sql("SELECT count(*) FROM sensor WHERE name = 'far'") == [["0"]]
