"""`cariflex-vtn events` against a VTN with its real API."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cariflex.vtn.commands import events
from cariflex.vtn.events import Opt
from tests.unit.services.openadr_support import TOKEN, VEN, RunningVtn, next_hour, price_body, running_vtn, vtn_settings

BODY = price_body(next_hour())


class Terminal:
    """Runs commands as an operator beside the VTN does."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = vtn_settings(secrets_dir=str(folder))
        self.body = folder / "event.json"
        self.body.write_text(json.dumps(BODY))
        (folder / "openadr_api_token").write_text(f"{TOKEN}\n")
        (folder / "vtn.yml").write_text(yaml.safe_dump(json.loads(self.settings.model_dump_json())))
        monkeypatch.setenv("CARIFLEX_CONFIG", str(folder / "vtn.yml"))
        self._capsys = capsys

    async def __call__(self, *argv: str) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        status = await asyncio.to_thread(events, list(argv))
        printed = self._capsys.readouterr()
        assert TOKEN not in printed.out + printed.err
        return status, printed.out, printed.err


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


async def test_an_event_is_previewed_put_listed_shown_and_cancelled(terminal: Terminal) -> None:
    async with running_vtn(settings=terminal.settings) as vtn:
        file = str(terminal.body)
        status, printed, _ = await terminal("put", "--preview", "price-1", file)
        assert (status, printed.split(":")[0]) == (0, "would change")
        assert vtn.store.history == {}
        for expected in ("changed", "unchanged"):
            status, printed, _ = await terminal("put", "price-1", file)
            assert (status, printed) == (0, f"{expected}: price-1  version 0  far  {VEN} -\n")
        status, printed, _ = await terminal("list")
        heading, row = printed.splitlines()
        assert heading.startswith("EVENT ")
        assert row.startswith("price-1  ENERGY_PRICE  ")
        assert json.loads((await terminal("list", "--json", "--limit", "1"))[1])[0]["event_id"] == "price-1"
        assert len(json.loads((await terminal("show", "price-1"))[1])["versions"]) == 1
        assert (await terminal("cancel", "price-1"))[1] == f"changed: price-1  version 1  cancelled  {VEN} -\n"
        assert (await terminal("cancel", "price-1"))[1].startswith("unchanged: ")


async def test_an_event_can_come_from_standard_input(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(BODY).encode())))
    async with running_vtn(settings=terminal.settings) as vtn:
        assert (await terminal("put", "price-1"))[0] == 0
        assert set(vtn.store.history) == {"price-1"}


async def test_watching_shows_each_change_once_and_ends_with_the_event(terminal: Terminal) -> None:
    async def change(vtn: RunningVtn) -> None:
        await asyncio.sleep(0.4)
        await vtn.api("DELETE", "/api/v1/events/price-1")
        await asyncio.sleep(0.4)
        opt: dict[str, Any] = {"modification_number": 1, "opt_type": "optIn", "received_at": vtn.board.clock()}
        await vtn.store.answer("price-1", VEN, Opt(**opt))

    async with running_vtn(settings=terminal.settings) as vtn:
        await terminal("put", "price-1", str(terminal.body))
        (status, printed, _), _ = await asyncio.gather(terminal("watch", "price-1"), change(vtn))
        assert status == 0
        assert [line.split("  ", 1)[1] for line in printed.splitlines()] == [
            f"price-1  version 0  far  {VEN} -",
            f"price-1  version 1  cancelled  {VEN} -",
            f"price-1  version 1  cancelled  {VEN} optIn",
        ]


async def test_targets_of_the_command_line_go_before_those_of_the_file(terminal: Terminal) -> None:
    async with running_vtn(settings=terminal.settings) as vtn:
        terminal.body.write_text(json.dumps(BODY | {"targets": ["nobody"]}))
        assert (await terminal("put", "--target", "all", "price-1", str(terminal.body)))[0] == 0
        assert vtn.store.history["price-1"][-1].targets == terminal.settings.vens.keys()
        status, _, told = await terminal("put", "--target", VEN, "--target", "group:x", "price-1", str(terminal.body))
        assert (status, "group" in told) == (1, True)
        terminal.body.write_text("no JSON")
        status, _, told = await terminal("put", "--target", "all", "price-1", str(terminal.body))
        assert (status, "is not JSON" in told) == (1, True)


async def test_a_refusal_names_field_and_fix(terminal: Terminal) -> None:
    async with running_vtn(settings=terminal.settings):
        terminal.body.write_text(json.dumps(BODY | {"unit": "kW"}))
        status, _, told = await terminal("put", "price-1", str(terminal.body))
        assert status == 1
        assert told.startswith("unit: is not the unit of ENERGY_PRICE")
        status, _, told = await terminal("show", "price-1")
        assert (status, "There is no event price-1." in told) == (1, True)
        status, _, told = await terminal("cancel", "../vens")
        assert (status, "event_id" in told) == (1, True)
        status, _, told = await terminal("put", "price-1", "/nowhere.json")
        assert (status, "No such file" in told) == (1, True)


async def test_another_vtn_can_be_named(terminal: Terminal, tmp_path: Path) -> None:
    token = str(tmp_path / "openadr_api_token")
    async with running_vtn(settings=vtn_settings()) as vtn:
        url = f"http://127.0.0.1:{vtn.settings.api_port}"
        assert (await terminal("--url", url, "--token-file", token, "list"))[0] == 0
        (tmp_path / "openadr_api_token").write_text("another one")
        status, _, told = await terminal("--url", url, "--token-file", token, "list")
        assert (status, "openadr_api_token" in told) == (1, True)
        (tmp_path / "openadr_api_token").write_text(TOKEN)
        status, _, told = await terminal("--url", vtn.url, "--token-file", token, "list")
        assert (status, "Is this the HTTP API of the VTN?" in told) == (1, True)


@pytest.mark.parametrize(
    ("argv", "status", "text"),
    [
        (["--url", "http://127.0.0.1:1", "list"], 78, "belong together"),
        (["--url", "vtn", "--token-file", "/nowhere", "list"], 78, "is no address"),
        (["--url", "http://127.0.0.1:1", "--token-file", "/nowhere", "list"], 78, "/nowhere"),
        (["list"], 1, "Is the VTN running?"),
    ],
)
async def test_what_cannot_be_reached_is_explained(terminal: Terminal, argv: list[str], status: int, text: str) -> None:
    got, _, told = await terminal(*argv)
    assert (got, text in told) == (status, True)


async def test_missing_settings_are_status_78(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARIFLEX_CONFIG", "/nowhere.yml")
    got, _, told = await terminal("list")
    assert (got, "CARIFLEX_CONFIG" in told) == (78, True)


@pytest.mark.parametrize("argv", [[], ["list", "--limit", "0"], ["watch", "--seconds", "1"], ["put"], ["lst"]])
def test_a_wrong_command_line_is_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        events(argv)
    assert stopped.value.code == 2
