"""Settings of the simulator."""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cariflex.settings import Port, ServiceSettings


class SimulatedDevice(BaseModel):
    """A device that does not exist. Its token is in the secret `s2_tokens`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["battery", "ev"] = Field(description="battery or ev", examples=["battery"])
    min_kw: float = Field(description="the lowest power in kW, + is consumption", examples=[-50])
    max_kw: float = Field(description="the highest power in kW, + is consumption", examples=[50])
    energy_kwh: float = Field(gt=0, description="the capacity in kWh", examples=[100])


class SimulatorSettings(ServiceSettings):
    """S2 resource managers of devices that do not exist."""

    url: str = Field(
        pattern=r"^wss?://\S+$", description="the address of the CEM", examples=["ws://192.168.240.11:8765/s2"]
    )
    ca: Path | None = Field(
        None,
        description="the PEM file of the authority that signed the CEM's certificate; none: those of the system",
        examples=["/run/secrets/s2_ca"],
    )
    timezone: str = Field(description="the site's timezone", examples=["America/Martinique"])
    port: Port = Field(8080, description="the port of /health and /metrics", examples=[8080])
    devices: dict[str, SimulatedDevice] = Field(
        description="the devices by name",
        examples=[{"battery_01": {"kind": "battery", "min_kw": -50, "max_kw": 50, "energy_kwh": 100}}],
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no timezone of the tz database") from None
        return value
