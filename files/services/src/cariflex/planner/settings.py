"""Settings of the planner."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cariflex.durations import Duration
from cariflex.settings import Port, ServiceSettings
from cariflex.ven.settings import FlexMeasures


class Price(BaseModel):
    """A sensor with prices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: int = Field(ge=1, description="the id of the sensor in FlexMeasures", examples=[84])
    unit: str = Field(pattern="^EUR/MWh$", description="the unit of the sensor, EUR/MWh", examples=["EUR/MWh"])
    resolution: Duration = Field(description="the resolution of the sensor", examples=["PT1H"])


class PlannedResource(BaseModel):
    """A device that is planned. What it can do and holds comes from the CEM."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: int = Field(ge=1, description="the id of the sensor that takes its plan, in kW", examples=[101])
    max_kw: float = Field(description="the highest power in kW, + is consumption", examples=[50])


class PlannerSettings(ServiceSettings):
    """Planner of Cariflex EMS."""

    port: Port = Field(8090, description="the port of /health and /metrics", examples=[8090])
    data_dir: Path = Field(
        Path("/var/lib/cariflex"),
        description="the folder of the VEN's outbox, on a volume",
        examples=["/var/lib/cariflex"],
    )
    flexmeasures: FlexMeasures = Field(description="url and email for FlexMeasures")
    every: Duration = Field(timedelta(minutes=15), description="the time between two plans", examples=["PT15M"])
    horizon: Duration = Field(timedelta(days=1), description="how far a plan reaches", examples=["PT24H"])
    resolution: Duration = Field(
        timedelta(minutes=15), description="the resolution of the sensors that take the plans", examples=["PT15M"]
    )
    consumption_price: Price = Field(description="the price of what is consumed")
    production_price: Price = Field(description="the price of what is fed in")
    roundtrip_efficiency: float = Field(
        0.9, gt=0, le=1, description="the share of the energy that a storage gives back", examples=[0.9]
    )
    production: tuple[int, ...] = Field(
        (), description="the sensors of production that is not controlled, in kW", examples=[[41, 42]]
    )
    consumption: tuple[int, ...] = Field(
        (), description="the sensors of consumption that is not controlled, in kW", examples=[[201]]
    )
    forecast_every: Duration = Field(
        timedelta(hours=6), description="the time between two forecasts of a sensor", examples=["PT6H"]
    )
    resources: dict[str, PlannedResource] = Field(
        description="the devices by name", examples=[{"battery_01": {"sensor": 101, "max_kw": 50}}]
    )

    @model_validator(mode="after")
    def _on_one_grid(self) -> Self:
        for name in ("every", "horizon"):
            if (value := getattr(self, name)) < self.resolution or value % self.resolution:
                raise ValueError(f"{name} is no multiple of resolution")
        if self.horizon > timedelta(days=2):  # FlexMeasures gives no more of a plan
            raise ValueError("horizon is longer than PT48H")
        if timedelta(days=1) % self.resolution or self.resolution < timedelta(minutes=1):
            raise ValueError("resolution does not divide a day into equal parts of whole minutes")
        for price in (self.consumption_price, self.production_price):
            if price.resolution % self.resolution:
                raise ValueError(f"the resolution of sensor {price.sensor} is no multiple of resolution")
        if self.forecast_every < timedelta(hours=1):
            raise ValueError("forecast_every is shorter than an hour")
        return self
