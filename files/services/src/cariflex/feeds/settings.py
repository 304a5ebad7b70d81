"""Settings of the feeds."""

from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator, model_validator

from cariflex.durations import Duration
from cariflex.settings import Port, ServiceSettings
from cariflex.ven.settings import FlexMeasures

_Price = Annotated[float, Field(ge=-10_000, le=10_000)]


class FedSensor(BaseModel):
    """A sensor that takes what a feed brings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: int = Field(ge=1, description="the id of the sensor in FlexMeasures", examples=[81])
    unit: str = Field(description="the unit of the sensor", examples=["W/m²"])
    resolution: Duration = Field(description="the resolution of the sensor", examples=["PT1H"])


class Weather(BaseModel):
    """What Open-Meteo says of the site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpUrl = Field(
        HttpUrl("https://api.open-meteo.com"),
        description="Open-Meteo's address",
        examples=["https://api.open-meteo.com"],
    )
    with_key: bool = Field(
        False, description="whether Open-Meteo wants a key: the secret open_meteo_api_key", examples=[True]
    )
    sensors: dict[Literal["irradiance", "temperature", "wind_speed"], FedSensor] = Field(
        description="the sensors of irradiance (W/m²), temperature (°C) and wind_speed (m/s)",
        examples=[{"irradiance": {"sensor": 81, "unit": "W/m²", "resolution": "PT1H"}}],
    )

    @model_validator(mode="after")
    def _no_key_in_the_clear(self) -> Self:
        if self.with_key and self.url.scheme != "https":
            raise ValueError(f"with_key needs an https address, not {self.url}: a key is not sent in the clear")
        return self


class Tariff(BaseModel):
    """The price of what is fed in: a daily table, or a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: FedSensor = Field(description="the sensor of the price, in EUR/MWh")
    daily: dict[time, _Price] | None = Field(
        None,
        description="the price from each time of the day on, in EUR/MWh, by the site's clock",
        examples=[{"00:00": 90, "18:00": 140}],
    )
    file: Path | None = Field(
        None,
        description="a CSV file with the columns start (a time with its offset) and eur_per_mwh; each price holds "
        "until the next",
        examples=["/etc/cariflex/tariff.csv"],
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.daily is None) == (self.file is None):
            raise ValueError("needs either daily or file")
        if self.daily is not None and time(0) not in self.daily:
            raise ValueError("daily says nothing of 00:00")
        if self.sensor.unit != "EUR/MWh":
            raise ValueError(f"sensor is in {self.sensor.unit}, not in EUR/MWh")
        return self


class SimulatedPv(BaseModel):
    """A photovoltaic array that does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: FedSensor = Field(description="the sensor of its power, in kW")
    peak_kw: float = Field(gt=0, le=100_000, description="the power under standard conditions in kW", examples=[20])
    tilt: float = Field(15, ge=0, le=90, description="the degrees from the horizontal", examples=[15])
    azimuth: float = Field(180, ge=0, lt=360, description="the degrees from north by east", examples=[180])


class SimulatedLoad(BaseModel):
    """Consumption that does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: FedSensor = Field(description="the sensor of its power, in kW")
    base_kw: float = Field(ge=0, description="the lowest power in kW", examples=[15])
    peak_kw: float = Field(gt=0, le=100_000, description="the highest power in kW", examples=[60])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.base_kw > self.peak_kw:
            raise ValueError(f"base_kw, {self.base_kw:g}, is above peak_kw, {self.peak_kw:g}")
        return self


class SimulatedStorage(BaseModel):
    """A battery or an EV that does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: FedSensor = Field(description="the sensor of its stored energy, in kWh")
    kind: Literal["battery", "ev"] = Field(description="battery or ev", examples=["battery"])
    min_kw: float = Field(description="the lowest power in kW, + is consumption", examples=[-50])
    max_kw: float = Field(description="the highest power in kW, + is consumption", examples=[50])
    energy_kwh: float = Field(gt=0, description="the capacity in kWh", examples=[100])
    live: bool = Field(
        True,
        description="false where the CEM tells its state, so that only its history is made up",
        examples=[False],
    )


class Simulated(BaseModel):
    """Devices that do not exist. Only in dev."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    history: Duration = Field(
        timedelta(days=7), description="how much history is made up on the first start", examples=["P7D"]
    )
    seed: int = Field(1, description="what makes one run of clouds differ from another", examples=[1])
    pv: dict[str, SimulatedPv] = Field({}, description="the arrays by name")
    loads: dict[str, SimulatedLoad] = Field({}, description="the consumers by name")
    storages: dict[str, SimulatedStorage] = Field({}, description="the batteries and EVs by name")


class FeedsSettings(ServiceSettings):
    """Feeds of Cariflex EMS: weather, tariff and, in dev, simulated devices."""

    environment: str = Field(description="the environment, such as prod", examples=["prod"])
    port: Port = Field(8080, description="the port of /health and /metrics", examples=[8080])
    data_dir: Path = Field(
        Path("/var/lib/cariflex"), description="the folder of the outbox, on a volume", examples=["/var/lib/cariflex"]
    )
    outbox_age_limit_seconds: int = Field(
        300, ge=1, description="the seconds a value may wait before the feeds call themselves unwell", examples=[300]
    )
    flexmeasures: FlexMeasures = Field(description="url and email for FlexMeasures")
    latitude: float = Field(ge=-90, le=90, description="the site's latitude in degrees", examples=[14.6415])
    longitude: float = Field(ge=-180, le=180, description="the site's longitude in degrees", examples=[-61.0242])
    timezone: str = Field(description="the site's timezone", examples=["America/Martinique"])
    weather: Weather | None = Field(None, description="Open-Meteo's weather; without it none is asked for")
    tariff: Tariff | None = Field(None, description="the price of what is fed in")
    simulated: Simulated | None = Field(None, description="devices that do not exist; only in dev")

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no known timezone") from None
        return value

    @model_validator(mode="after")
    def _only_dev_simulates(self) -> Self:
        if self.simulated is not None and self.environment != "dev":
            raise ValueError(f"simulated data are for dev; the environment {self.environment} gets none")
        return self
