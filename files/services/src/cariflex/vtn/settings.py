"""Settings of the VTN."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic.dataclasses import dataclass

from cariflex.durations import Duration
from cariflex.openadr.tls import Fingerprint, Tls
from cariflex.settings import Port, ServiceSettings

# openleadr turns ids that look like numbers or booleans into those, so an id needs a letter and more.
VenId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{1,63}$")]
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Granularity = Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(days=1))]


class Database(BaseModel):
    """Where the VTN's store is. The password is the secret `openadr_db_password`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(description="the host name of PostgreSQL", examples=["flexmeasures-db"])
    port: Port = Field(5432, description="the port of PostgreSQL", examples=[5432])
    name: str = Field("openadr", description="the name of the database", examples=["openadr"])
    user: str = Field("openadr", description="the role that owns the database", examples=["openadr"])


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Ven:
    """A VEN that is admitted. No BaseModel, which takes a kilobyte more for each of thousands."""

    registration_id: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9._-]{1,99}$",
        description="the registration id the VTN gives to this VEN",
        examples=["reg-Cariflex-VEN-001"],
    )
    fingerprints: tuple[Fingerprint, ...] = Field(
        (),
        description="with TLS: the fingerprints of its certificates, two while it changes from one to the next",
        examples=[["0A:1B:2C:3D:4E:5F:60:71:82:93"]],
    )
    groups: tuple[GroupName, ...] = Field(
        (),
        description="the groups the VEN belongs to; an event for group:<name> goes to all in it",
        examples=[["north"]],
    )


class VtnSettings(ServiceSettings):
    """OpenADR 2.0b VTN of Cariflex EMS. For its events see `cariflex-vtn events --help`."""

    vtn_id: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9._-]{1,63}$",
        description="the id of this VTN, with at least one capital letter",
        examples=["CARIFLEX_VTN"],
    )
    path: str = Field(
        "/OpenADR2/Simple/2.0b",
        pattern=r"^(/[A-Za-z0-9._-]+)+$",
        description="the path under which OpenADR is served",
        examples=["/OpenADR2/Simple/2.0b"],
    )
    port: Port = Field(8080, description="the port of OpenADR", examples=[8080])
    api_port: Port = Field(8081, description="the port of the HTTP API, /health and /metrics", examples=[8081])
    poll_seconds: int = Field(10, ge=1, le=3600, description="the seconds between two polls of a VEN", examples=[10])
    past_start_minutes: int = Field(
        60, ge=0, description="the minutes a new event may have begun before it is created", examples=[60]
    )
    database: Database = Field(description="host, port, name and user of the database")
    vens: dict[VenId, Ven] = Field(
        description="the VENs that are admitted, by VEN name, each with its registration_id",
        examples=[{"Cariflex-VEN-001": {"registration_id": "reg-Cariflex-VEN-001"}}],
    )
    tls: Tls | None = Field(
        None,
        description="certificate, key and ca for mutual TLS; without it OpenADR is plain HTTP",
        examples=[{"certificate": "/run/secrets/vtn.crt", "key": "/run/secrets/vtn.key", "ca": "/run/secrets/ca.crt"}],
    )

    @field_validator("vens")
    @classmethod
    def _each_certificate_is_of_one(cls, value: dict[str, Ven]) -> dict[str, Ven]:
        owner: dict[str, str] = {}
        for name, ven in value.items():
            for fingerprint in ven.fingerprints:
                if owner.setdefault(fingerprint, name) != name:
                    raise ValueError(f"gives the certificate {fingerprint} to both {owner[fingerprint]} and {name}")
        return value

    reports: dict[Literal["TELEMETRY_USAGE", "TELEMETRY_STATUS"], _Granularity] = Field(
        {"TELEMETRY_USAGE": timedelta(minutes=1), "TELEMETRY_STATUS": timedelta(minutes=1)},
        description="the reports that VENs are asked for, each with its granularity of 1 second to 1 day",
        examples=[{"TELEMETRY_USAGE": "PT1M"}],
    )
    history_days: int = Field(
        7, ge=1, le=3650, description="the days after its end at which an event moves to the history", examples=[7]
    )
    report_days: int = Field(
        30, ge=1, le=3650, description="the days for which reported values and opt schedules are kept", examples=[30]
    )

    @property
    def groups(self) -> dict[str, frozenset[str]]:
        """The VENs of each group."""
        names = {name for ven in self.vens.values() for name in ven.groups}
        return {name: frozenset(ven_id for ven_id, ven in self.vens.items() if name in ven.groups) for name in names}

    @field_validator("vtn_id")
    @classmethod
    def _not_all_lowercase(cls, value: str) -> str:
        if value.islower():
            raise ValueError("is all lowercase, which VENs answer with 452 INVALID_ID")
        return value
