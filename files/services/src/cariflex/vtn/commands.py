"""`cariflex-vtn events …`: what the HTTP API can do, for a person at a terminal beside the VTN."""

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from cariflex.problems import Problem
from cariflex.service import EX_CONFIG
from cariflex.settings import SettingsError
from cariflex.vtn.settings import VtnSettings

TIMEOUT_SECONDS = 30
SETTINGS_PATH = "/etc/cariflex/vtn.yml"

Event = Mapping[str, Any]


class CommandError(Exception):
    """A command failed; the text says why and what to do."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to one address only."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Take a redirect as an error."""


class Client:
    """The HTTP API of one VTN."""

    def __init__(self, url: str, token: SecretStr) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Send one request.

        Raises:
            CommandError: no answer, a refusal, or an answer that is not the VTN's.
        """
        address = f"{self._url}/api/v1/{path}"
        with self._answer(method, address, body) as answer:
            try:
                told = json.load(answer)
            except ValueError:
                told = None
        if not isinstance(told, dict):
            raise CommandError(f"{address}: this is not the HTTP API of the VTN. Give its address with --url.")
        return told

    def watch(self, event_id: str | None) -> Iterator[dict[str, Any]]:
        """Events as they change, for as long as the VTN tells; raises as `call` does."""
        query = f"?event_id={urllib.parse.quote(event_id, safe='')}" if event_id else ""
        with self._answer("GET", f"{self._url}/api/v1/watch{query}", None) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    @contextmanager
    def _answer(self, method: str, address: str, body: bytes | None) -> Iterator[Any]:
        headers = {"Authorization": f"Bearer {self._token.get_secret_value()}", "Content-Type": "application/json"}
        try:
            request = urllib.request.Request(address, body, headers, method=method)  # noqa: S310  the operator's own
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise CommandError(_refusal(address, error.code, error.read())) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise CommandError(f"{address}: no answer ({reason}). Is the VTN running?") from None

    def events(self, limit: int) -> list[dict[str, Any]]:
        """The events with the latest starts."""
        found: list[dict[str, Any]] = self.call("GET", f"events?limit={limit}")["events"]
        return found

    def event(self, event_id: str) -> dict[str, Any]:
        """One event with its versions."""
        return self.call("GET", _path(event_id))


def _path(event_id: str) -> str:
    return f"events/{urllib.parse.quote(event_id, safe='')}"


def _refusal(address: str, status: int, body: bytes) -> str:
    try:
        problems = [Problem(**told) for told in json.loads(body)["errors"]]
    except (ValueError, TypeError, KeyError):
        return f"{address}: HTTP status {status}. Is this the HTTP API of the VTN?"
    return "\n".join(str(problem) for problem in problems)


def _answers(event: Event) -> str:
    """Who answered the current version, and how."""
    return ", ".join(f"{ven} {opt['opt_type'] if opt else '-'}" for ven, opt in event["opts"].items())


def _line(event: Event) -> str:
    parts = (event["event_id"], f"version {event['modification_number']}", event["status"], _answers(event))
    return "  ".join(parts)


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = list(rows)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _list(client: Client, options: argparse.Namespace) -> None:
    events = client.events(options.limit)
    if options.json:
        print(json.dumps(events, indent=2))
        return
    rows = [("EVENT", "SIGNAL", "START", "END", "VERSION", "STATUS", "ANSWERS")]
    for event in events:
        version = str(event["modification_number"])
        times = (event["start"], event["end"])
        rows.append((event["event_id"], event["signal_name"], *times, version, event["status"], _answers(event)))
    print(_table(rows))


def _show(client: Client, options: argparse.Namespace) -> None:
    print(json.dumps(client.event(options.event_id), indent=2))


def _put(client: Client, options: argparse.Namespace) -> None:
    try:
        body = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    except OSError as error:
        raise CommandError(f"{options.file} cannot be read: {error.strerror}.") from None
    if options.target:
        body = _aimed(body, options.target)
    path = _path(options.event_id)
    told = client.call("POST", f"{path}/preview", body) if options.preview else client.call("PUT", path, body)
    change = ("would change" if options.preview else "changed") if told["changed"] else "unchanged"
    print(f"{change}: {_line(told['event'])}")


def _aimed(body: bytes, targets: list[str]) -> bytes:
    """The event with other targets."""
    try:
        event = json.loads(body)
    except ValueError as error:
        raise CommandError(f"the event is not JSON ({error}). /openapi.json says what it has to be.") from None
    if not isinstance(event, dict):
        raise CommandError("the event is no JSON object. /openapi.json says what it has to be.")
    return json.dumps(event | {"targets": "all" if targets == ["all"] else targets}).encode()


def _cancel(client: Client, options: argparse.Namespace) -> None:
    told = client.call("DELETE", _path(options.event_id))
    print(f"{'changed' if told['changed'] else 'unchanged'}: {_line(told['event'])}")


def _watch(client: Client, options: argparse.Namespace) -> None:
    """Print an event whenever something about it changes; of one event, until it is over and answered."""
    seen: dict[str, str] = {}
    for event in client.watch(options.event_id):
        line = _line(event)
        if seen.get(event["event_id"]) != line:
            seen[event["event_id"]] = line
            print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
        if options.event_id and _settled(event):
            return


def _settled(event: Event) -> bool:
    """Whether nothing can come any more: it has ended, or it is cancelled and every VEN knows."""
    answered = all(event["opts"].values())
    return event["status"] == "completed" or (event["status"] == "cancelled" and answered)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("give 1 to 1000")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cariflex-vtn events", description="Events of the VTN.")
    parser.add_argument("--url", help="address of another VTN's HTTP API (default: the VTN beside this command)")
    parser.add_argument("--token-file", type=Path, help="file with the token of that VTN")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
        command.set_defaults(run=run)
        return command

    listing = add("list", _list, "list events, the latest start first")
    listing.add_argument("--json", action="store_true", help="everything the API tells, as JSON")
    show = add("show", _show, "show one event with its versions, as JSON")
    put = add("put", _put, "create or change an event")
    put.add_argument("--preview", action="store_true", help="only say what would change")
    cancel = add("cancel", _cancel, "cancel an event")
    watch = add("watch", _watch, "print events whenever one changes or is answered; of one event, until it is over")
    for command in (show, put, cancel):
        command.add_argument("event_id")
    put.add_argument("file", nargs="?", default="-", help="JSON file (default: standard input), as /openapi.json says")
    watch.add_argument("event_id", nargs="?", help="only this event")
    listing.add_argument("--limit", type=_limit, default=100, help="how many events at most (default 100)")
    put.add_argument(
        "--target", action="append", help="a VEN, group:<name> or all, instead of the file's targets; may be repeated"
    )
    return parser


def _client(options: argparse.Namespace) -> Client:
    """The client for the VTN that is meant: the one beside us, unless told otherwise."""
    if bool(options.url) != bool(options.token_file):
        raise SettingsError("--url and --token-file belong together: give both or neither.")
    if not options.url:
        settings = VtnSettings.read(SETTINGS_PATH)
        return Client(f"http://127.0.0.1:{settings.api_port}", settings.secret("openadr_api_token"))
    if not options.url.startswith(("http://", "https://")):
        raise SettingsError(f"--url {options.url} is no address. Give one such as http://192.168.240.10:8081.")
    try:
        return Client(options.url, SecretStr(options.token_file.read_text(encoding="utf-8").strip()))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{options.token_file}: the token cannot be read ({error}).") from None


def events(argv: list[str]) -> int:
    """Run `cariflex-vtn events`.

    Returns the exit status: 1 when the VTN refused or could not be reached, 2 for a wrong command line, 78 when the
    settings or the token cannot be read.
    """
    options = _parser().parse_args(argv)
    try:
        options.run(_client(options), options)
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    except SettingsError as error:
        print(f"cariflex-vtn: {error}", file=sys.stderr)
        return EX_CONFIG
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    return 0
