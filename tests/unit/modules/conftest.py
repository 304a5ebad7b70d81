"""Modules run as Ansible runs them, within this process, and a small HTTP server to run them against."""

import contextlib
import functools
import importlib.util
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.urls import make_context

from tests.support.certificate import self_signed

ROOT = Path(__file__).parents[3]
if str(ROOT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

# The same for all modules that are run: to read the certificate authorities takes longer than all else that they do.
TLS_CONTEXT = functools.cache(make_context)
RunModule = Callable[..., dict[str, Any]]


def load(path: Path) -> ModuleType:
    """Import a module of ours from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunModule:
    """Run a module of ours with arguments; returns what Ansible would get, with ``failed`` always set."""
    monkeypatch.setattr("ansible.module_utils.http_api.make_context", TLS_CONTEXT)

    def run(name: str, arguments: dict[str, Any], *, check: bool = False, diff: bool = False) -> dict[str, Any]:
        module = load(ROOT / "library" / f"{name}.py")
        given = {**arguments, "_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(given), contextlib.suppress(SystemExit):
            module.main()
        printed = capsys.readouterr().out
        return {"failed": False, "_printed": printed, **json.loads(printed)}

    return run


@dataclass
class Reply:
    """What the server answers to one request."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None  # answer only when this is set


@dataclass
class Received:
    """What a request held."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Server:
    """Answers requests with prepared replies, the last one again and again, and keeps what it received."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.replies: list[Reply] = []
        self.received: list[Received] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.received.append(Received(self.command, self.path, dict(self.headers), json.loads(raw or "null")))
                reply = outer.reply(self.command, self.path, outer.received[-1].body)
                if reply.after is not None:
                    reply.after.wait(10)
                text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                with contextlib.suppress(OSError):  # the client may have given up
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": str(len(text.encode())), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                """Tests read what was received, not a log."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that refuses our certificate is what some tests are about."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def reply(self, _method: str, _path: str, _body: Any) -> Reply:
        """The answer to a request."""
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server on this machine."""
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that only trusts itself, with its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))
