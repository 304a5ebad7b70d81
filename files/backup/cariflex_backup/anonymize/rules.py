"""What becomes of each column of each table. What is not named here is refused, so a new column cannot leak.

Only types that hold no text can be kept as they are. A text is kept where it is one of the words given here or a public
name, which the project's own topology declares for everybody to read; every other text gets a pseudonym.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Keep:
    """As it is: numbers, times, yes and no, and enumerations. They say nothing about anybody without names."""


@dataclass(frozen=True)
class Blank:
    """The same in every row that has a value.

    Attributes:
        value: as text; None empties the column.
    """

    value: str | None = None


@dataclass(frozen=True)
class Text:
    """One of the known words, a public name, or a pseudonym: the same one for the same text, in every column.

    Attributes:
        kind: of what it is a name; pseudonyms begin with it.
        like: pattern of the words that are kept.
        public: whether public names are kept.
        otherwise: what stands in the place of a pseudonym where only certain words have a meaning.
    """

    kind: str
    like: str = ""
    public: bool = False
    otherwise: str | None = None


@dataclass(frozen=True)
class Texts(Text):
    """An array of such."""


@dataclass(frozen=True)
class Document:
    """JSON: known keys alone, with rounded numbers, switches, quantities and durations (`documents`)."""


@dataclass(frozen=True)
class Digest:
    """Bytes: others of the same length, alike where they were alike."""


@dataclass(frozen=True)
class Rounded:
    """A number with three significant digits, as in documents."""


@dataclass(frozen=True)
class Moved:
    """The time of a measured value: moved by whole weeks, in a ring for each asset."""


@dataclass(frozen=True)
class Measured:
    """A measured value: scaled for each asset, with noise, rounded."""


@dataclass(frozen=True)
class Emptied:
    """A table of which no row stays.

    Attributes:
        why: for the report.
    """

    why: str


Rule: TypeAlias = Keep | Blank | Text | Document | Digest | Rounded | Moved | Measured
Table: TypeAlias = Emptied | Mapping[str, Rule]

KEEP, NOTHING, DOCUMENT = Keep(), Blank(), Document()

_PREFIX = "(?:[kMGm])?"
_ATOM = (
    f"(?:{_PREFIX}(?:Wh|W|VAh|VA|varh|var|A|V|J|m|g|s|bar|Pa|Hz|t)|°C|degC|K|h|min|d|%|°|L|l|hPa|ppm|lx|EUR|USD|GBP|XPF"
    "|dimensionless)(?:²|³|\\^[23]|\\*\\*[23])?"
)
UNIT = f"{_ATOM}(?:[/*·]{_ATOM}){{0,2}}|"
_TIMEZONE = Text("timezone", like="America/Martinique|UTC", otherwise="America/Martinique")
_HEAD = Text("revision", like="[0-9a-f]{12}|[0-9]{4}")
_ASSET_TYPES = (
    "solar|wind|one-way_evse|two-way_evse|battery|building|process|heat-storage|site|weather station|transmission zone"
)
_SIGNALS = (
    "SIMPLE|ELECTRICITY_PRICE|ENERGY_PRICE|DEMAND_CHARGE|BID_PRICE|BID_LOAD|BID_ENERGY|CHARGE_STATE|LOAD_DISPATCH"
    "|LOAD_CONTROL"
)
_HORIZONS = "ex_post|ex_ante|x_days_ago_at_y_oclock|x_days_ago_at_y_o_clock|x_years_ago_at_date|at_date"
_SCHEDULERS = "StorageScheduler|StorageFallbackScheduler|ProcessScheduler"
_REPORTERS = "PandasReporter|AggregatorReporter|ProfitOrLossReporter"
_FORECASTERS = "TrainPredictPipeline|CustomLGBM|naive|linear-OLS"
_LEGACY = Emptied("FlexMeasures reads it no longer; names, owners and coordinates")
_HOST = Emptied("of production's host alone")
_DEVICES = Emptied("what single devices did, to the second")

FLEXMEASURES: Mapping[str, Table] = {
    "public.account": {
        "id": KEEP,
        "name": Text("account", public=True),
        "consultancy_account_id": KEEP,
        "primary_color": NOTHING,
        "secondary_color": NOTHING,
        "logo_url": NOTHING,
        "attributes": DOCUMENT,
        "secrets": Blank("{}"),
        "plan_id": KEEP,
    },
    "public.account_role": {
        "id": KEEP,
        "name": Text("account-role", like="Consultancy|Prosumer|MDC|DSO|Aggregator|Supplier|ESCO|Dummy"),
        "description": NOTHING,
    },
    "public.alembic_version": {"version_num": _HEAD},
    "public.annotation": Emptied("free text"),
    "public.annotations_accounts": Emptied("links to annotations"),
    "public.annotations_assets": Emptied("links to annotations"),
    "public.annotations_sensors": Emptied("links to annotations"),
    "public.asset": _LEGACY,
    "public.asset_audit_log": Emptied("who did what, in free text"),
    "public.asset_type": _LEGACY,
    "public.audit_log": Emptied("who did what, in free text"),
    "public.data_source": {
        "id": KEEP,
        "name": Text("user", like="FlexMeasures"),  # that of its user, where it has one
        "type": Text(
            "type",
            like="user|forecaster|scheduler|reporter|script|demo script|scheduling script|forecasting script",
            otherwise="script",
        ),
        "user_id": KEEP,
        "model": Text("model", like=f"{_SCHEDULERS}|{_REPORTERS}|{_FORECASTERS}"),
        "version": Text("version", like=r"\d{1,3}(?:\.\d{1,3}){0,2}", otherwise="1"),
        "attributes": Blank("{}"),
        "attributes_hash": Digest(),
        "account_id": KEEP,
    },
    "public.fm_user": {
        "id": KEEP,
        "email": Text("email"),
        "username": Text("user"),
        "password": NOTHING,
        "last_login_at": NOTHING,
        "login_count": Blank("0"),
        "active": KEEP,
        "timezone": _TIMEZONE,
        "fs_uniquifier": Text("session"),  # whoever was logged in no longer is
        "account_id": KEEP,
        "last_seen_at": NOTHING,
        "tf_totp_secret": NOTHING,
        "tf_primary_method": NOTHING,
    },
    "public.generic_asset": {
        "id": KEEP,
        "name": Text("asset", public=True),
        "latitude": Blank("14.65"),  # the island's centre
        "longitude": Blank("-61"),
        "generic_asset_type_id": KEEP,
        "account_id": KEEP,
        "attributes": DOCUMENT,
        "parent_asset_id": KEEP,
        "sensors_to_show": DOCUMENT,
        "flex_context": DOCUMENT,
        "flex_model": DOCUMENT,
        "sensors_to_show_as_kpis": DOCUMENT,
        "external_id": Text("external"),
        "secrets": Blank("{}"),
        "description": NOTHING,
    },
    "public.generic_asset_type": {
        "id": KEEP,
        "name": Text("asset-type", like=_ASSET_TYPES, public=True),
        "description": NOTHING,
    },
    "public.latest_task_run": _HOST,
    "public.market": _LEGACY,
    "public.market_type": _LEGACY,
    "public.plan": {
        "id": KEEP,
        "name": Text("plan"),
        "default_rate_limit": NOTHING,
        "trigger_rate_limit": NOTHING,
        "rate_limit_key": KEEP,
        "max_users": KEEP,
        "max_assets": KEEP,
        "max_clients": KEEP,
        "legacy": KEEP,
    },
    "public.power": _LEGACY,
    "public.price": _LEGACY,
    "public.role": {
        "id": KEEP,
        "name": Text("role", like="admin|admin-reader|account-admin|consultant"),
        "description": NOTHING,
    },
    "public.roles_accounts": {"id": KEEP, "account_id": KEEP, "role_id": KEEP},
    "public.roles_users": {"id": KEEP, "user_id": KEEP, "role_id": KEEP},
    "public.sensor": {
        "id": KEEP,
        "name": Text("sensor", public=True),
        "unit": Text("unit", like=UNIT, otherwise="dimensionless"),
        "timezone": _TIMEZONE,
        "event_resolution": KEEP,
        "knowledge_horizon_fnc": Text("horizon", like=_HORIZONS, otherwise="ex_post"),
        "knowledge_horizon_par": DOCUMENT,
        "generic_asset_id": KEEP,
        "attributes": DOCUMENT,
    },
    "public.timed_belief": {
        "event_start": Moved(),
        "belief_horizon": KEEP,
        "cumulative_probability": KEEP,
        "event_value": Measured(),
        "sensor_id": KEEP,
        "source_id": KEEP,
    },
    "public.weather": _LEGACY,
    "public.weather_sensor": _LEGACY,
    "public.weather_sensor_type": _LEGACY,
    "ems.alembic_version": {"version_num": _HEAD},
    "ems.backup_run": _HOST,
    "ems.drill_run": _HOST,
    "ems.health_sample": _HOST,
    "ems.openadr_event": {
        "ven": Text("ven"),
        "event_id": Text("event"),
        "modification_number": KEEP,
        "signal": Text("signal", like=_SIGNALS),
        "status": Text("status", like="none|far|near|active|completed|cancelled", otherwise="none"),
        "test_event": KEEP,
        "starts_at": KEEP,
        "ends_at": KEEP,
        "intervals": DOCUMENT,
        "created_at": KEEP,
        "received_at": KEEP,
        "answered_at": KEEP,
    },
    "ems.openadr_opt": {
        "ven": Text("ven"),
        "event_id": Text("event"),
        "modification_number": KEEP,
        "time": KEEP,
        "opt_type": Text("opt", like="optIn|optOut", otherwise="optIn"),
        "reason": NOTHING,
    },
    "ems.s2_instruction": _DEVICES,
    "ems.s2_status": _DEVICES,
    "ems.schedule_run": Emptied("costs and energy of the site"),
}

OPENADR: Mapping[str, Table] = {
    "public.alembic_version": {"version_num": _HEAD},
    "public.event": {"event_id": Text("event"), "modification_number": KEEP, "created_at": KEEP},
    "public.event_history": Emptied("events of long ago, with who answered what"),
    "public.event_interval": {
        "event_id": Text("event"),
        "modification_number": KEEP,
        "position": KEEP,
        "seconds": KEEP,
        "value": Rounded(),
    },
    "public.event_target": {
        "event_id": Text("event"),
        "modification_number": KEEP,
        "ven_id": Text("ven"),
        "withdrawn": KEEP,
    },
    "public.event_version": {
        "event_id": Text("event"),
        "modification_number": KEEP,
        "signal_name": Text("signal", like=_SIGNALS),
        "starts_at": KEEP,
        "ends_at": KEEP,
        "priority": KEEP,
        "test_event": KEEP,
        "cancelled": KEEP,
        "modified_at": KEEP,
        "asked": Texts("ven"),
    },
    "public.opt": {
        "opt_id": KEEP,
        "event_id": Text("event"),
        "modification_number": KEEP,
        "ven_id": Text("ven"),
        "opt_type": Text("opt", like="optIn|optOut", otherwise="optIn"),
        "received_at": KEEP,
    },
    "public.opt_schedule": Emptied("when somebody was away"),
    "public.report_datum": Emptied("what single VENs measured"),
    "public.report_point": Emptied("what single VENs can measure, in their own words"),
    "public.ven": {"ven_id": Text("ven"), "registration_id": NOTHING, "registered_at": NOTHING},
}

# roles of PostgreSQL that are part of the system; others may be called as people are
ROLES = ("postgres", "flexmeasures", "openadr", "grafana_ro", "cariflex_backup")
# database -> its tables
RULES: Mapping[str, Mapping[str, Table]] = {"flexmeasures": FLEXMEASURES, "openadr": OPENADR}
