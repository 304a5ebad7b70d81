"""Settings of the VEN."""

from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator

from cariflex.durations import Duration
from cariflex.openadr.signals import SIGNALS
from cariflex.settings import Port, ServiceSettings


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


class VenSettings(ServiceSettings):
    """OpenADR 2.0b VEN of Cariflex EMS."""

    ven_name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9._-]{1,63}$", description="the name of this VEN", examples=["Cariflex-VEN-001"]
    )
    vtn_url: HttpUrl = Field(
        description="the address of the VTN", examples=["http://192.168.240.10:8080/OpenADR2/Simple/2.0b"]
    )
    port: Port = Field(8080, description="the port of /health and /metrics", examples=[8080])
    data_dir: Path = Field(
        Path("/var/lib/cariflex"), description="the folder of the outbox, on a volume", examples=["/var/lib/cariflex"]
    )
    outbox_age_limit_seconds: int = Field(
        120, ge=1, description="the seconds a value may wait before the VEN calls itself unwell", examples=[120]
    )
    flexmeasures: FlexMeasures = Field(description="url and email for FlexMeasures")
    signals: dict[str, SensorOfSignal] = Field(
        description="the sensor for each OpenADR signal",
        examples=[{"ENERGY_PRICE": {"sensor": 84, "unit": "EUR/MWh", "resolution": "PT1H"}}],
    )

    @field_validator("signals")
    @classmethod
    def _known_with_their_units(cls, value: dict[str, SensorOfSignal]) -> dict[str, SensorOfSignal]:
        for name, target in value.items():
            if name not in SIGNALS:
                raise ValueError(f"has an unknown signal {name}; known are {', '.join(SIGNALS)}")
            if target.unit != SIGNALS[name].unit:
                raise ValueError(f"gives {name} in {target.unit}; its values come in {SIGNALS[name].unit}")
        return value
