"""Settings files and secrets: what is wrong is said with file, field and fix, and secrets are never shown."""

import json
import logging
from pathlib import Path

import pytest

from cariflex import logs
from cariflex.s2.settings import S2Settings, read_tokens
from cariflex.service import EX_CONFIG, run
from cariflex.settings import SettingsError
from cariflex.ven.settings import VenSettings
from cariflex.vtn.settings import VtnSettings

VTN = """
vtn_id: CARIFLEX_VTN
database: {host: flexmeasures-db}
vens:
  Cariflex-VEN-001: {registration_id: reg-Cariflex-VEN-001}
"""
VEN = """
ven_name: Cariflex-VEN-001
vtn_url: http://192.168.240.10:8080/OpenADR2/Simple/2.0b
flexmeasures: {url: "http://flexmeasures-server:5000", email: ven@cariflex.internal}
signals:
  ENERGY_PRICE: {sensor: 84, unit: EUR/MWh, resolution: PT1H}
"""


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.yml"
    monkeypatch.setenv("CARIFLEX_CONFIG", str(path))
    return path


def test_the_vtn_has_the_documented_defaults(settings_file: Path) -> None:
    settings_file.write_text(VTN)
    settings = VtnSettings.read("/etc/cariflex/vtn.yml")
    assert (settings.port, settings.api_port, settings.poll_seconds) == (8080, 8081, 10)
    assert settings.path == "/OpenADR2/Simple/2.0b"
    assert settings.vens["Cariflex-VEN-001"].registration_id == "reg-Cariflex-VEN-001"


def test_the_ven_reads_its_signals(settings_file: Path) -> None:
    settings_file.write_text(VEN)
    price = VenSettings.read("/etc/cariflex/ven.yml").signals["ENERGY_PRICE"]
    assert (price.sensor, price.unit, price.resolution.total_seconds()) == (84, "EUR/MWh", 3600)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("vtn_id:", "vtn_ident:"), ["vtn_ident: is not known", "Did you mean 'vtn_id'?", "vtn_id: is missing"]),
        (("CARIFLEX_VTN", "cariflex_vtn"), ["vtn_id: is all lowercase", "capital letter"]),
        (("{host: flexmeasures-db}", "{host: db, port: 99999}"), ["database.port", "99999", "for example 5432"]),
        (
            ("registration_id:", "registration:"),
            ["vens.Cariflex-VEN-001.registration: is not known", "registration_id"],
        ),
        (("Cariflex-VEN-001:", "1:"), ["vens"]),
        (("database:", "database: ["), ["cannot be read as YAML"]),
    ],
)
def test_a_mistake_in_the_vtns_file_is_named(settings_file: Path, change: tuple[str, str], said: list[str]) -> None:
    settings_file.write_text(VTN.replace(*change))
    with pytest.raises(SettingsError) as caught:
        VtnSettings.read("")
    for words in [str(settings_file), *said]:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("EUR/MWh", "EUR/kWh"), "gives ENERGY_PRICE in EUR/kWh; its values come in EUR/MWh"),
        (("PT1H", "1 hour"), "ISO 8601"),
        (("PT1H", "PT7H"), "does not divide a day"),
        (("ENERGY_PRICE", "ENERGY_PRIZE"), "unknown signal ENERGY_PRIZE"),
        (("sensor: 84", "sensor: eighty"), "signals.ENERGY_PRICE.sensor"),
        (("http://192", "192"), "vtn_url"),
        (("ven_name:", "timezone: Mars/Base\nven_name:"), "timezone: is no known timezone"),
        (
            ("ven_name:", "opt_out: [{reason: night, from: 22:00, to: '23:00'}]\nven_name:"),
            "opt_out.0.from: is not a time",
        ),
        (("ven_name:", "opt_out: [{reason: all}]\nven_name:"), "opt_out.0: would refuse every event"),
        (("ven_name:", "resources: {a: {min_kw: 1, max_kw: 1}}\nven_name:"), "resources.a: min_kw is not below max_kw"),
    ],
)
def test_a_mistake_in_the_vens_file_is_named(settings_file: Path, change: tuple[str, str], said: str) -> None:
    settings_file.write_text(VEN.replace(*change))
    with pytest.raises(SettingsError) as caught:
        VenSettings.read("")
    assert said in str(caught.value)


@pytest.mark.parametrize("content", ["", "- a list\n", "just text\n", "\t"])
def test_a_file_without_settings_is_refused(settings_file: Path, content: str) -> None:
    settings_file.write_text(content)
    with pytest.raises(SettingsError, match=r"settings\.yml"):
        VtnSettings.read("")


def test_a_missing_file_is_named(settings_file: Path) -> None:
    with pytest.raises(SettingsError, match=r"no such file.*CARIFLEX_CONFIG"):
        VtnSettings.read("")


def test_environment_variables_do_not_change_settings(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    settings_file.write_text(VTN)
    assert VtnSettings.read("").port == 8080


def test_a_short_secret_is_refused_without_being_shown(settings_file: Path, tmp_path: Path) -> None:
    settings_file.write_text(f"{VTN}secrets_dir: {tmp_path}\n")
    (tmp_path / "openadr_api_token").write_text("hunter2\n")
    with pytest.raises(SettingsError, match=r"has 7 characters\. Give at least 16") as caught:
        VtnSettings.read("").secret("openadr_api_token", 16)
    assert "hunter2" not in str(caught.value)


def test_a_missing_secret_is_named(settings_file: Path, tmp_path: Path) -> None:
    settings_file.write_text(f"{VTN}secrets_dir: {tmp_path}\n")
    with pytest.raises(SettingsError, match=r"openadr_db_password: secret cannot be read \(No such file"):
        VtnSettings.read("").secret("openadr_db_password")


def test_wrong_settings_end_the_process_with_78(settings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def never(_settings: VtnSettings) -> None:
        raise AssertionError

    settings_file.write_text("vtn_id: CARIFLEX_VTN\n")
    assert run("vtn", VtnSettings, never, ["serve"]) == EX_CONFIG
    assert "database: is missing" in capsys.readouterr().err


def test_check_reads_the_file_and_does_not_serve(settings_file: Path) -> None:
    async def never(_settings: VtnSettings) -> None:
        raise AssertionError

    settings_file.write_text(VTN)
    assert run("vtn", VtnSettings, never, ["check"]) == 0


def test_a_log_line_is_json_with_its_fields() -> None:
    record = logging.makeLogRecord({"name": "cariflex.vtn", "msg": "event %s", "args": ("sent",), "event_id": "a"})
    line = json.loads(logs.JsonFormatter("vtn").format(record))
    assert line["message"] == "event sent"
    assert (line["service"], line["event_id"]) == ("vtn", "a")
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("just a text", "is not a mapping of device names to tokens"),
        ("battery_01: 12", "is not a mapping"),
        ("battery_01: hunter2", "token of battery_01 is short"),
        ("a: a-token-of-two-devices\nb: a-token-of-two-devices", "two devices have the same token"),
        ("{", "is not a mapping"),
    ],
)
def test_wrong_tokens_are_said_and_not_shown(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "s2_tokens").write_text(content)
    settings = S2Settings.model_validate({"resources": {}, "secrets_dir": tmp_path})
    with pytest.raises(SettingsError, match=said) as caught:
        read_tokens(settings)
    assert "hunter2" not in str(caught.value)
    assert "a-token" not in str(caught.value)
