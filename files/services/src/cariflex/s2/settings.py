"""Settings of the CEM."""

import ssl
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cariflex.durations import Duration
from cariflex.settings import Port, ServiceSettings, SettingsError

TOKEN_LENGTH = 16  # characters at least


class Resource(BaseModel):
    """A device that may connect. Its token is in the secret `s2_tokens`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sensor: int = Field(ge=1, description="the id of the sensor for the stored energy", examples=[51])
    unit: str = Field(pattern="^kWh$", description="the unit of the sensor, kWh", examples=["kWh"])
    resolution: Duration = Field(description="the resolution of the sensor", examples=["PT5M"])
    min_kw: float = Field(description="the lowest power in kW, + is consumption", examples=[-50])
    max_kw: float = Field(description="the highest power in kW, + is consumption", examples=[50])
    energy_kwh: float = Field(gt=0, description="the capacity of the storage in kWh", examples=[100])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_kw >= self.max_kw:
            raise ValueError("min_kw is not below max_kw")
        if self.resolution.total_seconds() < 60:
            raise ValueError("resolution is shorter than a minute")
        return self


class S2Settings(ServiceSettings):
    """S2 customer energy manager of Cariflex EMS."""

    port: Port = Field(8765, description="the port of /s2", examples=[8765])
    tls_certificate: Path | None = Field(
        None,
        description="the PEM file of the CEM's certificate and of those between it and its authority; none: no TLS",
        examples=["/run/secrets/s2_certificate"],
    )
    tls_key: Path | None = Field(
        None, description="the PEM file of the certificate's private key", examples=["/run/secrets/s2_key"]
    )
    health_port: Port | None = Field(
        None,
        description="the port of /health and /metrics, without TLS; none: the port of /s2",
        examples=[8766],
    )
    data_dir: Path = Field(
        Path("/var/lib/cariflex"),
        description="the folder of the VEN's outbox, on a volume",
        examples=["/var/lib/cariflex"],
    )
    silence_limit_seconds: int = Field(
        120, ge=1, description="the seconds a connected device may be silent before it counts as unwell", examples=[120]
    )
    resources: dict[str, Resource] = Field(description="the devices by name", examples=[{"battery_01": {"sensor": 51}}])

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given both or not at all")
        if self.tls_key is not None and self.health_port in (None, self.port):
            raise ValueError("health_port has to be another than port where /s2 has TLS")
        return self

    def server_tls(self) -> ssl.SSLContext | None:
        """What the port of /s2 needs for TLS; None without.

        Raises:
            SettingsError: a file cannot be used.
        """
        if self.tls_certificate is None or self.tls_key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.tls_certificate, self.tls_key)
        except OSError as error:
            raise SettingsError(
                f"tls_certificate {self.tls_certificate}, tls_key {self.tls_key}: they are no certificate in PEM form "
                f"with its key ({error})."
            ) from None
        return context


def read_tokens(settings: ServiceSettings) -> dict[str, str]:
    """Token by device, from the secret `s2_tokens`: a YAML or JSON mapping of names to tokens.

    Raises:
        SettingsError: it is no such mapping, a token is too short, or two devices share one. No token is shown.
    """
    path = settings.secrets_dir / "s2_tokens"
    try:
        tokens = yaml.safe_load(settings.secret("s2_tokens").get_secret_value())
    except yaml.YAMLError:
        tokens = None
    if not isinstance(tokens, dict) or not all(isinstance(token, str) for token in tokens.values()):
        raise SettingsError(
            f"{path} is not a mapping of device names to tokens. Write lines such as battery_01: token."
        )
    for name, token in tokens.items():
        if len(token) < TOKEN_LENGTH:
            raise SettingsError(f"{path}: the token of {name} is short. Give at least {TOKEN_LENGTH} characters.")
    if len(set(tokens.values())) < len(tokens):
        raise SettingsError(f"{path}: two devices have the same token. Give each its own.")
    return {str(name): token for name, token in tokens.items()}
