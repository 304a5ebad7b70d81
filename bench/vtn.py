"""How many polls one VTN process answers, beside stock openleadr and a bare aiohttp handler, in one run.

    .venv/bin/python bench/vtn.py               polls per second: stock openleadr, ours, bare aiohttp, in turn
    .venv/bin/python bench/vtn.py --vens 2000 8000 15000
                                                also VENs that poll every 10 s, each on a connection of its own
    .venv/bin/python bench/vtn.py --event 1000  also what an event of 24 h to so many VENs costs

Each server runs alone, on the first core, the load on the second; everything stays on loopback. Figures depend on the
machine and on what else it does; ratios less so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.services import python

ROOT = Path(__file__).resolve().parent.parent
PATH = "/OpenADR2/Simple/2.0b"
SERVERS = {"stock openleadr": "stock", "ours": "ours", "bare aiohttp": "bare"}
# openleadr and aiohttp are in the services' environment only.
SERVE = [str(python()), "-m", "tests.unit.services.bench_servers"]
CORES = sorted(os.sched_getaffinity(0))
SECONDS = 4.0
POLL_SECONDS = 10.0
ROUNDS = 3
SPARE_DESCRIPTORS = 200  # of a process, for everything that is no VEN's connection


def ven(number: int) -> str:
    """Name of a VEN."""
    return f"Bench-VEN-{number:05}"


def template(message: str = "poll") -> bytes:
    """A message as openleadr's client sends it, of a VEN whose name is `ven(0)`: a poll or the answer to an event."""
    return subprocess.run([*SERVE, message, ven(0)], cwd=ROOT, capture_output=True, check=True).stdout


def poll(body: bytes, number: int, service: str = "OadrPoll") -> bytes:
    """The request of a VEN."""
    body = body.replace(ven(0).encode(), ven(number).encode())
    head = (
        f"POST {PATH}/{service} HTTP/1.1\r\nHost: vtn\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


# --- servers ---


@contextlib.contextmanager
def server(name: str, vens: int) -> Iterator[tuple[int, int]]:
    """A server process; its port and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    served = SERVERS.get(name, name)
    command = ["taskset", "--cpu-list", str(CORES[0]), *SERVE, served, str(port), *map(ven, range(vens))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"The server of {name} did not start.")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def memory_mb(process: int) -> float:
    """Resident memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def cpu_seconds(process: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- load ---


class Connection(asyncio.Protocol):
    """One VEN's connection; knows only enough HTTP to tell where an answer ends, so that it costs little."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand over an answer when it is whole."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if separator and self._waiting and not self._waiting.done():
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if len(body) >= length:
                self._buffer = b""
                self._waiting.set_result(head + body)

    def connection_lost(self, _error: Exception | None) -> None:
        """Fail the request under way."""
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """End the connection."""
        cast(asyncio.Transport, self._transport).abort()

    async def ask(self, request: bytes, expected: bytes = b"") -> float:
        """Send a request; the seconds until its answer, which has to be a 200 with `expected` in it."""
        transport = cast(asyncio.Transport, self._transport)
        self._waiting = asyncio.get_running_loop().create_future()
        start = time.perf_counter()
        transport.write(request)
        answer = await self._waiting
        if not answer.startswith(b"HTTP/1.1 200") or expected not in answer:
            raise ConnectionError(answer[:1000].decode(errors="replace"))
        return time.perf_counter() - start


async def connect(port: int) -> Connection:
    """A connection of one VEN."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def closed_loop(port: int, body: bytes, connections: int) -> tuple[float, list[float]]:
    """Every VEN polls again as soon as it has its answer: polls per second, and the time of each."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS

    async def work(number: int) -> None:
        connection, request = await connect(port), poll(body, number)
        while time.perf_counter() < end:
            times.append(await connection.ask(request))

    start = time.perf_counter()
    await asyncio.gather(*(work(number) for number in range(connections)))
    return len(times) / (time.perf_counter() - start), times


def every_ten_seconds(port: int, body: bytes, vens: int) -> list[float]:
    """VENs that poll every 10 s, evenly spread, for three rounds from the server's start: the time of each poll.

    A time counts from the moment at which the poll was due. One loop does without tasks and timers: 15,000 of them
    would take more time than the server does.
    """
    connections = {}
    selector = select.epoll()
    for number in range(vens):
        connection = socket.create_connection(("127.0.0.1", port))
        connections[connection.fileno()] = (number, connection)
        selector.register(connection, select.EPOLLIN)
    requests = [(connection, poll(body, number)) for number, connection in connections.values()]
    gc.freeze()  # its pauses would be counted as the server's
    due: dict[int, float] = {}
    times: list[float] = []
    start, sent = time.perf_counter() + 1, 0
    while due or sent < ROUNDS * vens:
        now = time.perf_counter()
        while sent < ROUNDS * vens and (at := start + POLL_SECONDS * sent / vens) <= now:
            connection, request = requests[sent % vens]
            if sent % vens in due:
                raise ConnectionError("no answer within 10 s")
            due[sent % vens] = at
            connection.sendall(request)
            sent += 1
        for descriptor, _ in selector.poll(max(0.0, min(at - now, 1.0)) if sent < ROUNDS * vens else 1.0):
            number, connection = connections[descriptor]
            answer = connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"</oadr:oadrPayload>"):
                raise ConnectionError(answer[:1000].decode(errors="replace"))
            times.append(time.perf_counter() - due.pop(number))
    for _, connection in connections.values():  # the next server's need the descriptors
        connection.close()
    return times


async def once_each(port: int, body: bytes, vens: int, service: str, expected: bytes) -> None:
    """One request of each VEN, over eight connections."""
    numbers = iter(range(vens))

    async def work() -> None:
        connection = await connect(port)
        for number in numbers:
            await connection.ask(poll(body, number, service), expected)

    await asyncio.gather(*(work() for _ in range(8)))


def event_costs(name: str, vens: int) -> list[float]:
    """Processor time in ms a VEN: of an empty poll, of a poll that brings an event of 24 h, of the answer to it."""
    costs = []
    rounds = [
        ("poll", "OadrPoll", b"<oadr:oadrResponse "),
        ("poll", "OadrPoll", b"<oadr:oadrDistributeEvent "),
        ("answer", "EiEvent", b"<oadr:oadrResponse "),
    ]
    with server(name, vens) as (port, pid):
        # what a VEN's first poll costs beyond the others is no cost of the event
        asyncio.run(once_each(port, template(), vens, "OadrPoll", b""))
        for number, (message, service, expected) in enumerate(rounds):
            if number == 1:
                os.kill(pid, signal.SIGUSR1)  # makes the event
                time.sleep(1 + vens / 1000)
            body, before = template(message), cpu_seconds(pid)
            asyncio.run(once_each(port, body, vens, service, expected))
            costs.append(1000 * (cpu_seconds(pid) - before) / vens)
    return costs


def percentiles(times: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in ms."""
    cuts = statistics.quantiles(times, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


def load() -> str:
    """Load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def measure(runs: int, populations: list[int], event_vens: list[int]) -> None:
    """Measure and print the tables."""
    os.sched_setaffinity(0, {CORES[-1]})
    body = template()
    print(f"Closed loop, {SECONDS:.0f} s each, median of {runs} (load average before: {load()})")
    heading = f"{'polls/s':>8} {'p50 ms':>7} {'p99 ms':>7}  {'to stock':>8} {'to bare':>8}"
    print(f"{'connections':>11}  {'server':<16} {heading}")
    for connections in (8, 16):
        found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in SERVERS}
        for _ in range(runs):
            for name in SERVERS:
                with server(name, connections) as (port, _pid):
                    found[name].append(asyncio.run(closed_loop(port, body, connections)))
        rates = {name: statistics.median(rate for rate, _ in each) for name, each in found.items()}
        for name in SERVERS:
            p50, p99 = percentiles([seconds for _, times in found[name] for seconds in times])
            ratios = (rates[name] / rates["stock openleadr"], rates[name] / rates["bare aiohttp"])
            columns = f"{rates[name]:>8.0f} {p50:>7.1f} {p99:>7.1f}  {ratios[0]:>8.2f} {ratios[1]:>8.2f}"
            print(f"{connections:>11}  {name:<16} {columns}", flush=True)
    for vens in populations:
        print(f"{vens} VENs polling every {POLL_SECONDS:.0f} s (load average before: {load()})")
        for name in ("stock openleadr", "ours"):
            with server(name, vens) as (port, pid):
                try:
                    p50, p99 = percentiles(every_ten_seconds(port, body, vens))
                    told = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
                except OSError as error:
                    told = f"broke: {error}"
                print(f"{'':>11}  {name:<16} {told}, {memory_mb(pid):.0f} MB", flush=True)
    for vens in event_vens:
        print(f"An event of 24 h to {vens} VENs, processor ms a VEN (load average before: {load()})")
        print(f"{'':>11}  {'server':<16} {'empty poll':>10} {'with event':>10} {'its answer':>10} {'more':>6}")
        for name in ("stock openleadr", "ours"):
            empty, event, answer = event_costs(name, vens)
            more = event - empty + answer
            print(f"{'':>11}  {name:<16} {empty:>10.2f} {event:>10.2f} {answer:>10.2f} {more:>6.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, choices=range(1, 10), default=3, help="runs of each server (default 3)")
    parser.add_argument("--vens", type=int, nargs="*", default=[], help="numbers of VENs that poll every 10 s")
    parser.add_argument("--event", type=int, nargs="*", default=[], help="numbers of VENs that get an event of 24 h")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = hard - SPARE_DESCRIPTORS
    if any(not 2 <= vens <= most for vens in options.vens):
        parser.error(f"give 2 to {most} VENs: a process may have {hard} open descriptors here (ulimit -n)")
    measure(options.runs, options.vens, options.event)


if __name__ == "__main__":
    main()
