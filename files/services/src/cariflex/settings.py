"""Settings of a service: one YAML file for everything that is not secret, one file per secret."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from cariflex.problems import problems_of

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(Exception):
    """A service cannot start with these settings; the text names file, field and fix."""


class ServiceSettings(BaseSettings):
    """What every service has. Values come from the YAML file alone, so that the file tells the whole story."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    host: str = Field("0.0.0.0", description="the address to listen on", examples=["0.0.0.0"])  # noqa: S104  in a container
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="one of DEBUG, INFO, WARNING, ERROR", examples=["INFO"]
    )
    secrets_dir: Path = Field(
        Path("/run/secrets"), description="the folder with one file per secret", examples=["/run/secrets"]
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic-settings passes them by name
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the YAML file, and arguments in tests."""
        yaml_file = settings_cls.model_config.get("yaml_file")
        return (init_settings, YamlConfigSettingsSource(settings_cls, yaml_file)) if yaml_file else (init_settings,)

    @classmethod
    def read(cls, default_path: str) -> Self:
        """Read the file that `CARIFLEX_CONFIG` names, or `default_path`.

        Raises:
            SettingsError: the file is missing or not valid.
        """
        path = Path(os.environ.get("CARIFLEX_CONFIG") or default_path)
        if not path.is_file():
            raise SettingsError(f"{path}: no such file. Mount the settings there, or name them in CARIFLEX_CONFIG.")
        bound = type(cls.__name__, (cls,), {"model_config": SettingsConfigDict(yaml_file=path), "__module__": __name__})
        try:
            settings: Self = bound()
        except ValidationError as error:
            lines = "\n".join(f"  {problem}" for problem in problems_of(error, cls))
            raise SettingsError(f"{path} is not valid:\n{lines}") from None
        except (yaml.YAMLError, ValueError, TypeError, OSError) as error:
            raise SettingsError(f"{path} cannot be read as YAML: {error}") from None
        return settings

    def secret(self, name: str, minimum_length: int = 1) -> SecretStr:
        """Read one secret; the value never appears in an error.

        Raises:
            SettingsError: the file is missing, unreadable or too short.
        """
        path = self.secrets_dir / name
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise SettingsError(
                f"{path}: secret cannot be read ({reason}). Mount it readable for uid {os.getuid()}."
            ) from None
        if len(value) < minimum_length:
            raise SettingsError(f"{path}: secret has {len(value)} characters. Give at least {minimum_length}.")
        return SecretStr(value)


Settings = TypeVar("Settings", bound=ServiceSettings)
