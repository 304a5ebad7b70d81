#!/usr/bin/env python3
"""Write Grafana's dashboards, as JSON, from this code and the topology.

``python files/grafana/make_dashboards.py`` writes ``files/grafana/dashboards/*.json``, which the role grafana deploys.
Sensor ids, units and resolutions come from ``playbooks/vars/topology.yml`` and the datasource's uid from the role, so
that none of them can be another one here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from grafana_foundation_sdk.builders import common, dashboard, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as m
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import units

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = Path(__file__).resolve().parent / "dashboards"

# Unit of a sensor -> how Grafana calls it; a name that Grafana does not know it shows behind the number.
UNITS = {
    "kW": units.KiloWatt,
    "kWh": units.KiloWattHour,
    "EUR/MWh": "EUR/MWh",
    "%": units.Percent,
    "W/m²": units.WattPerSquareMeter,
    "°C": units.Celsius,
    "m/s": units.MetersPerSecond,
    "dimensionless": units.NoUnit,
}
# Forecasts and schedules are stored on the sensor that they are for, beside what was measured or received.
MEASURED = "NOT IN ('forecaster', 'scheduler')"
# Stands for FlexMeasures' public address, which is another one on each host: the role grafana puts it in.
FLEXMEASURES = "https://flexmeasures.invalid/"
# What a series is called, in SQL.
AFTER_ASSET = "asset.name"
AFTER_SENSOR = "replace(sensor.name, '_', ' ')"


@dataclass(frozen=True)
class Sensor:
    """A sensor of the topology: its unit as FlexMeasures knows it, its resolution in ISO 8601 (``PT5M``)."""

    name: str
    id: int
    unit: str
    resolution: str

    @property
    def title(self) -> str:
        """Its name as a legend shows it."""
        return self.name.replace("_", " ")

    @property
    def minutes(self) -> int:
        """Its resolution in minutes.

        Raises:
            ValueError: it is not in whole minutes or hours.
        """
        found = re.fullmatch(r"PT(\d+)([MH])", self.resolution)
        if found is None:
            raise ValueError(f"sensor {self.name}: resolution {self.resolution} is not in whole minutes or hours")
        return int(found[1]) * {"M": 1, "H": 60}[found[2]]


@dataclass(frozen=True)
class Query(Dataquery, Builder[Dataquery]):
    """A query to PostgreSQL, for which the SDK has no class. Builds itself, because it has no optional parts."""

    sql: str
    format: Literal["time_series", "table"]
    datasource: m.DataSourceRef

    def build(self) -> Dataquery:
        """The query itself."""
        return self

    def to_json(self) -> dict[str, object]:
        """The fields that Grafana's PostgreSQL datasource reads."""
        return {
            "refId": "A",
            "datasource": self.datasource,
            "editorMode": "code",
            "format": self.format,
            "rawQuery": True,
            "rawSql": self.sql,
        }


def series_sql(sensors: Sequence[Sensor], legend: str, combined_by: str) -> str:
    """One series per sensor: of every event the latest belief about what was measured or received.

    Where the screen has fewer pixels than there are events, `combined_by` makes one value of several. Intervals
    without a value become gaps (the NULL of ``$__timeGroupAlias``), so that no line bridges them.

    Args:
        sensors: what is shown.
        legend: `AFTER_ASSET` or `AFTER_SENSOR`.
        combined_by: SQL aggregate: avg, min or max.
    """
    return f"""\
SELECT $__timeGroupAlias(event_start,$__interval,NULL), metric, {combined_by}(event_value) AS value
FROM (
  SELECT DISTINCT ON (belief.sensor_id, belief.event_start)
    belief.event_start, belief.event_value, {legend} AS metric
  FROM timed_belief belief
  JOIN data_source source ON source.id = belief.source_id
  JOIN sensor ON sensor.id = belief.sensor_id
  JOIN generic_asset asset ON asset.id = sensor.generic_asset_id
  WHERE belief.sensor_id IN ({_ids(sensors)})
    AND $__timeFilter(belief.event_start)
    AND belief.cumulative_probability = 0.5
    AND source.type {MEASURED}
  ORDER BY belief.sensor_id, belief.event_start, belief.belief_horizon, belief.source_id DESC
) latest
GROUP BY 1, 2
ORDER BY 1, 2"""  # noqa: S608 - every part is a constant of this file or a number from the topology


def freshness_sql(sensors: Sequence[Sensor], planned: Sequence[Sensor]) -> str:
    """One row per sensor: its latest value up to now and how many intervals are missing since, the worst first.

    Plans have one row together, with the number of devices that have one: a vehicle that is away has none.

    Args:
        sensors: those that get a value every interval.
        planned: those that take plans.
    """
    return f"""\
SELECT "Sensor", "Last value from", "Value", "Unit", "Intervals missing"
FROM (
SELECT
  sensor.id,
  sensor.name AS "Sensor",
  latest.event_start AS "Last value from",
  latest.event_value AS "Value",
  sensor.unit AS "Unit",
  latest.missing AS "Intervals missing"
FROM sensor
LEFT JOIN LATERAL (
  SELECT
    belief.event_start,
    belief.event_value,
    GREATEST(0, floor(EXTRACT(EPOCH FROM now() - belief.event_start) / EXTRACT(EPOCH FROM sensor.event_resolution)) - 1)
      AS missing
  FROM timed_belief belief
  WHERE belief.sensor_id = sensor.id
    AND belief.event_start <= now()
    AND belief.cumulative_probability = 0.5
    AND belief.source_id IN (SELECT id FROM data_source WHERE type {MEASURED})
  ORDER BY belief.event_start DESC, belief.belief_horizon, belief.source_id DESC
  LIMIT 1
) latest ON true
WHERE sensor.id IN ({_ids(sensors)})
UNION ALL
(
  SELECT
    min(sensor.id),
    'plans',
    plan.event_start,
    count(plan.event_start),
    'devices',
    CASE WHEN plan.event_start IS NOT NULL THEN
      GREATEST(0, floor(extract(EPOCH FROM now() - plan.event_start) / extract(EPOCH FROM min(event_resolution))) - 1)
    END
  FROM sensor
  LEFT JOIN LATERAL (
    SELECT belief.event_start
    FROM timed_belief belief
    WHERE belief.sensor_id = sensor.id
      AND belief.event_start <= now()
      AND belief.source_id IN (SELECT id FROM data_source WHERE type = 'scheduler')
    ORDER BY belief.event_start DESC
    LIMIT 1
  ) plan ON true
  WHERE sensor.id IN ({_ids(planned)})
  GROUP BY plan.event_start
  ORDER BY plan.event_start DESC NULLS LAST
  LIMIT 1
)
) rows
ORDER BY "Intervals missing" DESC NULLS FIRST, id"""  # noqa: S608 - as above


def net_sql(production: Sequence[Sensor], consumption: Sequence[Sensor]) -> str:
    """What S2 devices and consumers take less what PV brings, in kW; without PV or devices there is no value.

    Args:
        production: sensors of what PV brings.
        consumption: sensors of what is taken beside the devices.
    """
    return f"""\
SELECT rest."time", 'taken from the grid' AS metric, devices.kw + rest.kw AS value
FROM (
  SELECT "time", sum(CASE WHEN sensor_id IN ({_ids(consumption)}) THEN kw ELSE -kw END) AS kw
  FROM (
    SELECT {_bin("event_start")} AS "time", sensor_id, avg(event_value) AS kw
    FROM (
      SELECT DISTINCT ON (belief.sensor_id, belief.event_start)
        belief.sensor_id, belief.event_start, belief.event_value
      FROM timed_belief belief
      JOIN data_source source ON source.id = belief.source_id
      WHERE belief.sensor_id IN ({_ids([*production, *consumption])})
        AND $__timeFilter(belief.event_start)
        AND belief.cumulative_probability = 0.5
        AND source.type {MEASURED}
      ORDER BY belief.sensor_id, belief.event_start, belief.belief_horizon, belief.source_id DESC
    ) latest
    GROUP BY 1, 2
  ) each
  GROUP BY 1
) rest
JOIN ({_DEVICES_SQL}) devices ON devices."time" = rest."time"
ORDER BY 1"""  # noqa: S608 - as above


def _bin(column: str) -> str:
    """The beginning of the interval of the screen that a time is in; what $__timeGroup says takes ten times as long."""
    return f"date_bin($__interval_ms * interval '1 millisecond', {column}, 'epoch')"


# What the S2 devices take together: the mean of each in an interval, added up.
_DEVICES_SQL = f"""
  SELECT "time", sum(kw) AS kw
  FROM (
    SELECT {_bin("status.time")} AS "time", resource, avg(power_kw) AS kw
    FROM ems.s2_status status
    WHERE $__timeFilter(status.time)
      AND power_kw IS NOT NULL
    GROUP BY 1, 2
  ) each
  GROUP BY 1
"""  # noqa: S608 - as above


def plan_sql(sensors: Sequence[Sensor]) -> str:
    """The newest plan of each device, added up, beside what they took.

    A quarter of an hour has a hundred plans, each with its belief: the newest is looked up, one by one, not sorted out.
    With the sources as an array the primary key has them in that order; as a join PostgreSQL sorts all of them.

    Args:
        sensors: those that take plans.
    """
    return f"""\
SELECT "time", metric, value
FROM (
  SELECT "time", 'planned' AS metric, sum(kw) AS value
  FROM (
    SELECT {_bin("event_start")} AS "time", sensor.id, avg(newest.event_value) AS kw
    FROM sensor
    CROSS JOIN LATERAL generate_series(
      date_bin(sensor.event_resolution, $__timeFrom()::timestamptz, 'epoch'),
      $__timeTo()::timestamptz,
      sensor.event_resolution
    ) AS event_start
    CROSS JOIN LATERAL (
      SELECT belief.event_value
      FROM timed_belief belief
      WHERE belief.sensor_id = sensor.id
        AND belief.event_start = event_start.event_start
        AND belief.cumulative_probability = 0.5
        AND belief.source_id = ANY (ARRAY(SELECT id FROM data_source WHERE type = 'scheduler'))
      ORDER BY belief.belief_horizon, belief.source_id DESC
      LIMIT 1
    ) newest
    WHERE sensor.id IN ({_ids(sensors)})
    GROUP BY 1, 2
  ) each
  GROUP BY 1
  UNION ALL
  SELECT "time", 'actual' AS metric, kw AS value
  FROM ({_DEVICES_SQL}) devices
) both_of_them
ORDER BY 1, 2"""  # noqa: S608 - as above


EVENTS_SQL = """\
SELECT
  event.received_at AS "Received",
  event.event_id AS "Event",
  event.modification_number AS "Version",
  event.signal AS "Signal",
  event.status AS "Status",
  event.starts_at AS "Starts",
  event.ends_at AS "Ends",
  opt.opt_type AS "Opt",
  opt.reason AS "Reason",
  event.ven AS "VEN"
FROM ems.openadr_event event
LEFT JOIN LATERAL (
  SELECT opt_type, reason
  FROM ems.openadr_opt opt
  WHERE opt.ven = event.ven AND opt.event_id = event.event_id AND opt.modification_number = event.modification_number
  ORDER BY opt.time DESC
  LIMIT 1
) opt ON true
WHERE $__timeFilter(event.received_at) OR $__timeFilter(event.starts_at)
ORDER BY event.received_at DESC, event.event_id
LIMIT 200"""

INSTRUCTIONS_SQL = """\
SELECT
  execution_time AS "Time",
  resource AS "Device",
  mode AS "Mode",
  power_kw AS "Power",
  limit_kw AS "Limit",
  reason AS "Because of",
  array_to_string(event_ids, ', ') AS "Events",
  status AS "Status",
  EXTRACT(EPOCH FROM accepted_at - sent_at) AS "Accepted after"
FROM ems.s2_instruction
WHERE $__timeFilter(execution_time)
ORDER BY execution_time DESC, resource
LIMIT 200"""

# What has samples, and the last sample of each: looked up one by one, since there is one every minute.
_SAMPLES_SQL = """\
WITH RECURSIVE known AS (
  (SELECT kind, name FROM ems.health_sample ORDER BY kind, name LIMIT 1)
  UNION ALL
  SELECT next.kind, next.name
  FROM known
  CROSS JOIN LATERAL (
    SELECT sample.kind, sample.name
    FROM ems.health_sample sample
    WHERE (sample.kind, sample.name) > (known.kind, known.name)
    ORDER BY sample.kind, sample.name
    LIMIT 1
  ) next
), latest AS (
  SELECT sample.*
  FROM known
  CROSS JOIN LATERAL (
    SELECT *
    FROM ems.health_sample sample
    WHERE sample.kind = known.kind AND sample.name = known.name AND sample.time > now() - interval '1 day'
    ORDER BY sample.time DESC
    LIMIT 1
  ) sample
)"""

# The last of each; what happens seldom is looked for in a longer time than the dashboard's.
TASKS_SQL = f"""\
{_SAMPLES_SQL}
SELECT
  task AS "Task",
  status AS "Status",
  at AS "Last",
  waiting AS "Waiting",
  failed AS "Failed",
  eur AS "Saves",
  kwh AS "Saves energy",
  kw AS "Saves peak",
  detail AS "Detail"
FROM (
  (
    SELECT 1 AS part, 'queue ' || name AS task, status, time AS at, waiting, failed,
      NULL AS eur, NULL AS kwh, NULL AS kw, detail
    FROM latest
    WHERE kind = 'queue'
  )
  UNION ALL
  (
    SELECT 2, 'schedule', status, started_at, NULL, NULL,
      baseline_cost_eur - cost_eur, baseline_energy_kwh - energy_kwh, baseline_peak_kw - peak_kw,
      COALESCE(error, trigger)
    FROM ems.schedule_run
    ORDER BY started_at DESC
    LIMIT 10
  )
  UNION ALL
  (
    SELECT DISTINCT ON (kind) 3, 'backup ' || kind, status, started_at, NULL, NULL, NULL, NULL, NULL,
      COALESCE(error, archive)
    FROM ems.backup_run
    WHERE started_at > now() - interval '31 days'
    ORDER BY kind, started_at DESC
  )
  UNION ALL
  (
    SELECT 4, 'restore drill', status, started_at, NULL, NULL, NULL, NULL, NULL, COALESCE(error, archive)
    FROM ems.drill_run
    ORDER BY started_at DESC
    LIMIT 1
  )
) tasks
ORDER BY part, at DESC, task"""  # noqa: S608 - as above

HEALTH_SQL = f"""\
{_SAMPLES_SQL}
SELECT
  kind AS "Kind",
  name AS "Name",
  status AS "Status",
  time AS "Seen",
  cpu AS "CPU",
  memory_bytes AS "Memory",
  memory_bytes::float8 / memory_limit_bytes AS "Of its limit",
  restarts AS "Restarts",
  disk_used_fraction AS "Disk used",
  certificate_days AS "Days left",
  outbox_age_seconds AS "Outbox age",
  detail AS "Detail"
FROM latest
WHERE kind <> 'queue'
ORDER BY kind, name"""  # noqa: S608 - as above


def _ids(sensors: Sequence[Sensor]) -> str:
    return ", ".join(str(sensor.id) for sensor in sensors)


class Panels:
    """Makes the panels of one datasource.

    Panel ids are given by hand and stay: links and alert rules name them.
    """

    def __init__(self, topology: dict[str, Any], datasource: m.DataSourceRef) -> None:
        self._datasource = datasource
        resources = topology["s2_resources"].values()
        self._planned = [resource["plan_sensor"] for resource in resources if "plan_sensor" in resource]
        self._sensors = [
            Sensor(name, entry["id"], entry["unit"], entry["resolution"]) for name, entry in topology["sensors"].items()
        ]

    def sensors(self, is_meant: Callable[[Sensor], bool]) -> list[Sensor]:
        """The sensors that a panel shows, by their id.

        Raises:
            ValueError: there is none.
        """
        found = sorted(filter(is_meant, self._sensors), key=lambda sensor: sensor.id)
        if not found:
            raise ValueError("a panel would show no sensor: the topology has other names than make_dashboards.py")
        return found

    def named(self, *names: str) -> list[Sensor]:
        """The sensors with these names."""
        return self.sensors(lambda sensor: sensor.name in names)

    def planned(self) -> list[Sensor]:
        """The sensors that take the plans of S2 devices."""
        return self.named(*self._planned)

    def devices(self, kind: str) -> list[Sensor]:
        """The documented sensors of one kind of device: ``pv``, ``bat`` or ``ev``."""
        return self.sensors(lambda sensor: sensor.name.startswith(f"{kind}_") and sensor.name.endswith("_power"))

    def series(
        self, id_: int, title: str, description: str, sensors: Sequence[Sensor], legend: str, combined_by: str = "avg"
    ) -> timeseries.Panel:
        """A panel with one line per sensor.

        Units and the shortest interval are the sensors'. Sensors with different units get an axis per unit.
        """
        panel = (
            timeseries.Panel()
            .id(id_)
            .title(title)
            .description(description)
            .datasource(self._datasource)
            .with_target(Query(series_sql(sensors, legend, combined_by), "time_series", self._datasource))
            .interval(f"{min(sensor.minutes for sensor in sensors)}m")
            .height(8)
            .span(12)
            .unit(UNITS[sensors[0].unit])
            .line_width(1)
            .show_points(m.VisibilityMode.AUTO)
            .legend(
                common.VizLegendOptions()
                .show_legend(True)
                .display_mode(m.LegendDisplayMode.TABLE)
                .placement(m.LegendPlacement.RIGHT)
                .calcs(["lastNotNull"])
            )
            .tooltip(common.VizTooltipOptions().mode(m.TooltipDisplayMode.MULTI).sort(m.SortOrder.DESCENDING))
        )
        for sensor in sensors:
            if sensor.unit != sensors[0].unit:
                panel.override_by_name(sensor.title, [d.DynamicConfigValue("unit", UNITS[sensor.unit])])
        return panel

    def power(self, id_: int, title: str, description: str, sql: str) -> timeseries.Panel:
        """A panel of power in kW, from a query of its own."""
        panel = self.series(id_, title, description, self.devices("pv"), AFTER_SENSOR)
        return panel.targets([Query(sql, "time_series", self._datasource)])

    def log(
        self, id_: int, title: str, description: str, sql: str, columns: dict[str, list[d.DynamicConfigValue]]
    ) -> table.Panel:
        """A table with a line for each thing that happened or runs.

        Args:
            id_: its number.
            title: its title.
            description: what it shows.
            sql: a query whose columns are called as the table shows them.
            columns: how to show the columns that are no plain texts.
        """
        panel = (
            table.Panel()
            .id(id_)
            .title(title)
            .description(description)
            .datasource(self._datasource)
            .with_target(Query(sql, "table", self._datasource))
            .height(10)
            .span(24)
        )
        for name, settings in columns.items():
            panel.override_by_name(name, settings)
        return panel

    def signal(
        self, id_: int, title: str, description: str, name: str, combined_by: str, steps: Sequence[d.Threshold]
    ) -> timeseries.Panel:
        """A panel with one bar for each interval of a signal that is there only while an event lasts.

        Its colour says how strict it is: `steps` are where colours begin.
        """
        return (
            self.series(id_, title, description, self.named(name), AFTER_SENSOR, combined_by)
            .draw_style(m.GraphDrawStyle.BARS)
            .bar_alignment(m.BarAlignment.AFTER)
            .bar_width_factor(1)
            .fill_opacity(40)
            .axis_soft_min(0)
            .thresholds(dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(list(steps)))
            .color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
        )

    def freshness(self, id_: int, title: str, description: str, sensors: Sequence[Sensor]) -> table.Panel:
        """A table of the sensors, those without recent values first and in red."""
        missing = [
            d.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
            d.DynamicConfigValue("color", {"mode": "thresholds"}),
            d.DynamicConfigValue(
                "thresholds",
                d.ThresholdsConfig(
                    d.ThresholdsMode.ABSOLUTE,
                    [d.Threshold(None, "green"), d.Threshold(3, "orange"), d.Threshold(12, "red")],
                ),
            ),
            d.DynamicConfigValue(
                "mappings",
                [
                    d.SpecialValueMap(
                        d.DashboardSpecialValueMapOptions(
                            d.SpecialValueMatch.NULL, d.ValueMappingResult("never any value", "red")
                        )
                    )
                ],
            ),
        ]
        return (
            table.Panel()
            .id(id_)
            .title(title)
            .description(description)
            .datasource(self._datasource)
            .with_target(Query(freshness_sql(sensors, self.planned()), "table", self._datasource))
            .height(10)
            .span(24)
            .override_by_name("Intervals missing", missing)
            .override_by_name("Value", [d.DynamicConfigValue("decimals", 1)])
        )


def _unit(unit: str, decimals: int = 1) -> list[d.DynamicConfigValue]:
    return [d.DynamicConfigValue("unit", unit), d.DynamicConfigValue("decimals", decimals)]


def _steps(unit: str, orange: float, red: float, *, falling: bool = False) -> list[d.DynamicConfigValue]:
    """A cell that is orange and red from these values on; where it is falling, below them."""
    colours = ("red", "orange", "green") if falling else ("green", "orange", "red")
    at = (None, red, orange) if falling else (None, orange, red)
    steps = [d.Threshold(value, colour) for value, colour in zip(at, colours, strict=True)]
    return [
        *_unit(unit),
        d.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        d.DynamicConfigValue("color", {"mode": "thresholds"}),
        d.DynamicConfigValue("thresholds", d.ThresholdsConfig(d.ThresholdsMode.ABSOLUTE, steps)),
    ]


def _words(**colours: str) -> list[d.DynamicConfigValue]:
    """A cell in the colour of the word in it."""
    options = {word: d.ValueMappingResult(word, colour) for word, colour in colours.items()}
    return [
        d.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        d.DynamicConfigValue("mappings", [d.ValueMap(options)]),
    ]


def _to_panel(title: str, id_: int) -> dashboard.DashboardLink:
    """A link to another panel, over the same time."""
    return (
        dashboard.DashboardLink(title)
        .type(d.DashboardLinkType.LINK)
        .url(f"/d/cariflex/cariflex-ems?viewPanel={id_}&${{__url_time_range}}")
    )


def cariflex(topology: dict[str, Any], datasource: m.DataSourceRef) -> dashboard.Dashboard:
    """The one dashboard of the system.

    Args:
        topology: the declared topology.
        datasource: the provisioned PostgreSQL datasource.
    """
    panels = Panels(topology, datasource)
    levels = {"0": "normal", "1": "moderate", "2": "high", "3": "special"}
    return (
        dashboard.Dashboard("Cariflex EMS")
        .uid("cariflex")
        .description("Made by files/grafana/make_dashboards.py: change it there.")
        .tags(["cariflex"])
        .timezone(topology["site"]["timezone"])
        .time("now-24h", "now+24h")  # prices and load control are known a day ahead
        .refresh("30s")
        .week_start("monday")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("FlexMeasures")
            .type(d.DashboardLinkType.LINK)
            .icon("external link")
            .target_blank(True)
            .url(FLEXMEASURES)
        )
        .with_panel(
            panels.series(
                1, "PV production", "Power of each PV system, on top of each other.", panels.devices("pv"), AFTER_ASSET
            )
            .fill_opacity(30)
            .stacking(common.StackingConfig().mode(m.StackingMode.NORMAL))
            .links([_to_panel("Weather", 8), _to_panel("Grid net power", 4)])
        )
        .with_panel(
            panels.series(
                2, "Battery state of charge", "Energy stored in each battery.", panels.devices("bat"), AFTER_ASSET
            ).links([_to_panel("Schedule against actual", 9), _to_panel("S2 instruction log", 11)])
        )
        .with_panel(
            panels.series(3, "EV charging", "Charge of each vehicle.", panels.devices("ev"), AFTER_ASSET).links(
                [_to_panel("Schedule against actual", 9), _to_panel("S2 instruction log", 11)]
            )
        )
        .with_panel(
            panels.power(
                4,
                "Grid net power",
                "What the S2 devices and the site beside them take, less what PV brings; below zero the site feeds in."
                " Added up from their meters: there is none at the grid.",
                net_sql(panels.devices("pv"), panels.named(*topology["schedules"]["consumption"])),
            )
            .fill_opacity(20)
            .thresholds(
                dashboard.ThresholdsConfig()
                .mode(d.ThresholdsMode.ABSOLUTE)
                .steps([d.Threshold(None, "green"), d.Threshold(0, "orange")])
            )
            .thresholds_style(common.GraphThresholdsStyleConfig().mode(m.GraphThresholdsStyleMode.LINE))
            .links([_to_panel("Container health", 14)])
        )
        .with_panel(
            panels.series(
                5,
                "Prices",
                "Consumption prices come from the utility's ENERGY_PRICE events.",
                panels.named("consumption_price", "production_price"),
                AFTER_SENSOR,
            )
            .line_interpolation(m.LineInterpolation.STEP_AFTER)
            .links([_to_panel("OpenADR events and opts", 10), _to_panel("Schedule against actual", 9)])
        )
        .with_panel(
            panels.signal(
                6,
                "Load-control signal",
                "Share of maximum consumption that LOAD_CONTROL events allow. Zoomed out: the strictest.",
                "load_control_signal",
                "min",
                [d.Threshold(None, "red"), d.Threshold(50, "orange"), d.Threshold(100, "green")],
            )
            .axis_soft_max(100)
            .links([_to_panel("OpenADR events and opts", 10), _to_panel("S2 instruction log", 11)])
        )
        .with_panel(
            panels.signal(
                7,
                "Demand-response signal",
                "Level of SIMPLE events. Zoomed out: the highest.",
                "demand_response_signal",
                "max",
                [d.Threshold(None, "green"), d.Threshold(1, "yellow"), d.Threshold(2, "orange"), d.Threshold(3, "red")],
            )
            .axis_soft_max(3)
            .decimals(0)
            .mappings([d.ValueMap({level: d.ValueMappingResult(text) for level, text in levels.items()})])
            .links([_to_panel("OpenADR events and opts", 10), _to_panel("S2 instruction log", 11)])
        )
        .with_panel(
            panels.series(
                8,
                "Weather",
                "Irradiance, temperature and wind at the site.",
                panels.named("irradiance", "temperature", "wind_speed"),
                AFTER_SENSOR,
            ).links([_to_panel("PV production", 1), _to_panel("Data freshness", 13)])
        )
        .with_panel(
            panels.power(
                9,
                "Schedule against actual",
                "Power of all S2 devices together, above zero when they charge: by the newest plan, and as measured.",
                plan_sql(panels.planned()),
            )
            .span(24)
            .override_by_name(
                "planned",
                [
                    d.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
                    d.DynamicConfigValue("custom.lineInterpolation", "stepAfter"),
                ],
            )
            .links([_to_panel("Job queue and tasks", 12), _to_panel("S2 instruction log", 11)])
        )
        .with_panel(
            panels.log(
                10,
                "OpenADR events and opts",
                "Versions of events that were received, or begin, in the time shown, with the answer that holds.",
                EVENTS_SQL,
                {"Opt": _words(optIn="green", optOut="orange")},
            ).links([_to_panel("Load-control signal", 6), _to_panel("S2 instruction log", 11)])
        )
        .with_panel(
            panels.log(
                11,
                "S2 instruction log",
                "What devices were told, and what became of it. The newest 200.",
                INSTRUCTIONS_SQL,
                {
                    "Power": _unit(units.KiloWatt),
                    "Limit": _unit(units.KiloWatt),
                    "Accepted after": _steps(units.Seconds, 5, 30),
                    "Status": _words(SUCCEEDED="green", STARTED="green", REJECTED="red", ABORTED="red"),
                },
            ).links([_to_panel("Schedule against actual", 9), _to_panel("OpenADR events and opts", 10)])
        )
        .with_panel(
            panels.log(
                12,
                "Job queue and tasks",
                "Queues of FlexMeasures' worker, and the last runs of schedules, backups and restore drills. A schedule"
                " saves against doing nothing: money, energy from the grid, and of the highest power from the grid.",
                TASKS_SQL,
                {
                    "Status": _words(ok="green", running="blue", failed="red"),
                    "Waiting": _steps(units.Short, 20, 100),
                    "Failed": _steps(units.Short, 1, 10),
                    "Saves": _unit(units.Euro, 2),
                    "Saves energy": _unit(units.KiloWattHour),
                    "Saves peak": _unit(units.KiloWatt),
                },
            ).links([_to_panel("Schedule against actual", 9), _to_panel("Container health", 14)])
        )
        .with_panel(
            panels.freshness(
                13,
                "Data freshness",
                "Sensors that get a value every interval, and the devices' plans. Signals come with events only.",
                panels.sensors(lambda sensor: not sensor.name.endswith(("_signal", "_power_kw"))),
            ).links([_to_panel("Job queue and tasks", 12)])
        )
        .with_panel(
            panels.log(
                14,
                "Container health",
                "The last sample of each container, of the host and of each certificate; taken every minute.",
                HEALTH_SQL,
                {
                    "Status": _words(ok="green", starting="blue", unhealthy="red", exited="red", missing="red"),
                    "CPU": _unit(units.Short, 2),
                    "Memory": _unit(units.BytesIEC),
                    "Of its limit": _steps(units.PercentUnit, 0.8, 0.95),
                    "Disk used": _steps(units.PercentUnit, 0.8, 0.9),
                    "Days left": _steps(units.Days, 20, 7, falling=True),
                    "Outbox age": _steps(units.Seconds, 60, 300),
                },
            ).links([_to_panel("Data freshness", 13)])
        )
    )


def dashboards() -> dict[str, str]:
    """File name -> JSON text of every dashboard."""
    topology = yaml.safe_load((ROOT / "playbooks/vars/topology.yml").read_text(encoding="utf-8"))["topology_declared"]
    defaults = yaml.safe_load((ROOT / "roles/grafana/defaults/main.yml").read_text(encoding="utf-8"))
    datasource = m.DataSourceRef("grafana-postgresql-datasource", defaults["grafana_datasource_uid"])
    made = cariflex(topology, datasource).build()
    return {"cariflex.json": json.dumps(made, cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"}


def main() -> None:
    """Write every dashboard."""
    DASHBOARDS.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (DASHBOARDS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
