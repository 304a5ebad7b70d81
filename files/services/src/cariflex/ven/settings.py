"""Settings of the VEN."""

from datetime import timedelta
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator, model_validator

from cariflex.durations import Duration
from cariflex.openadr.signals import SIGNALS
from cariflex.openadr.tls import Fingerprint, Tls
from cariflex.settings import Port, ServiceSettings
from cariflex.ven.policy import Rule


class VenTls(Tls):
    """Mutual TLS with the VTN."""

    vtn_fingerprint: Fingerprint = Field(
        description="the fingerprint of the VTN's certificate", examples=["0A:1B:2C:3D:4E:5F:60:71:82:93"]
    )


class FlexMeasures(BaseModel):
    """Where values go. The password is the secret `flexmeasures_ven_password`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpUrl = Field(
        description="the address of the FlexMeasures server", examples=["http://flexmeasures-server:5000"]
    )
    email: str = Field(
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="the e-mail address with which the VEN logs in",
        examples=["ven@cariflex.internal"],
    )


class SensorOfSignal(BaseModel):
    """The sensor that takes a signal's values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: int = Field(ge=1, description="the id of the sensor in FlexMeasures", examples=[84])
    unit: str = Field(description="the unit of the sensor", examples=["EUR/MWh"])
    resolution: Duration = Field(description="the resolution of the sensor", examples=["PT1H"])

    @field_validator("resolution")
    @classmethod
    def _divides_a_day(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1) or timedelta(days=1) % value:
            raise ValueError("does not divide a day into equal parts of whole minutes")
        return value


class ReportedResource(BaseModel):
    """An S2 resource whose state is reported to the VTN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_kw: float = Field(description="the lowest power in kW, + is consumption", examples=[-50])
    max_kw: float = Field(description="the highest power in kW, + is consumption", examples=[50])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_kw >= self.max_kw:
            raise ValueError("min_kw is not below max_kw")
        return self


class VenSettings(ServiceSettings):
    """OpenADR 2.0b VEN of Cariflex EMS."""

    ven_name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9._-]{1,63}$", description="the name of this VEN", examples=["Cariflex-VEN-001"]
    )
    vtn_url: HttpUrl = Field(
        description="the address of the VTN", examples=["http://192.168.240.10:8080/OpenADR2/Simple/2.0b"]
    )
    tls: VenTls | None = Field(
        None,
        description="certificate, key, ca and vtn_fingerprint for mutual TLS; without it vtn_url is plain HTTP",
        examples=[
            {
                "certificate": "/run/secrets/ven.crt",
                "key": "/run/secrets/ven.key",
                "ca": "/run/secrets/ca.crt",
                "vtn_fingerprint": "0A:1B:2C:3D:4E:5F:60:71:82:93",
            }
        ],
    )
    port: Port = Field(8080, description="the port of /health and /metrics", examples=[8080])
    data_dir: Path = Field(
        Path("/var/lib/cariflex"), description="the folder of the outbox, on a volume", examples=["/var/lib/cariflex"]
    )
    outbox_age_limit_seconds: int = Field(
        120, ge=1, description="the seconds a value may wait before the VEN calls itself unwell", examples=[120]
    )
    flexmeasures: FlexMeasures = Field(description="url and email for FlexMeasures")
    timezone: str = Field("UTC", description="the site's timezone, for opt_out", examples=["America/Martinique"])
    opt_out: tuple[Rule, ...] = Field(
        (),
        description="what this site does not take part in",
        examples=[[{"reason": "maintenance", "start": "2027-03-01T08:00", "end": "2027-03-01T17:00"}]],
    )
    resources: dict[str, ReportedResource] = Field(
        {},
        description="the S2 resources that are reported to the VTN",
        examples=[{"battery_01": {"min_kw": -50, "max_kw": 50}}],
    )
    signals: dict[str, SensorOfSignal] = Field(
        description="the sensor of each OpenADR signal that has one",
        examples=[{"ENERGY_PRICE": {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"}}],
    )

    @model_validator(mode="after")
    def _tls_and_address_agree(self) -> Self:
        if (self.tls is not None) != (self.vtn_url.scheme == "https"):
            raise ValueError(
                f"vtn_url is {self.vtn_url} and tls is {'not ' if self.tls is None else ''}given; "
                "use https with tls, http without"
            )
        return self

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no known timezone") from None
        return value

    @field_validator("signals")
    @classmethod
    def _known_with_their_units(cls, value: dict[str, SensorOfSignal]) -> dict[str, SensorOfSignal]:
        for name, target in value.items():
            if name not in SIGNALS:
                raise ValueError(f"has an unknown signal {name}; known are {', '.join(SIGNALS)}")
            if target.unit != SIGNALS[name].unit:
                raise ValueError(f"gives {name} in {target.unit}; its values come in {SIGNALS[name].unit}")
        return value
