"""Polls, answered without parsing: they are nearly all that a VTN ever gets, and a VEN's are always the same.

A poll is known by its exact bytes, and only after openleadr has validated and parsed those bytes, and answered that
there is nothing. Whatever differs in a single byte takes the long way. What can change between two polls is asked anew
each time: whether the VEN is registered, and whether there is something for it.

There may be thousands of VENs, so what is kept of each is little.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256

from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from cariflex.vtn.board import Board

LONGEST_KNOWN_BYTES = 4096  # a poll has 500; a signed one is new each time and has more

_HEADERS = CIMultiDict({"Content-Type": "application/xml; charset=utf-8"})
_VEN = "\ue000".encode()  # stands for a VEN's name in what is kept; no message contains it

# The VEN whose poll the long way has just found nothing for.
_nothing_for: ContextVar[str | None] = ContextVar("nothing_for", default=None)


class _Fleeting(web.Response):
    """An answer that is let go of once it is written: aiohttp keeps each connection's last one until the next."""

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        self.body = None


class Polls(Collector):
    """How many polls of each VEN were answered. A Counter of prometheus_client would take a kilobyte for each."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    def count(self, ven_id: str) -> None:
        """One more."""
        self._of[ven_id] = self._of.get(ven_id, 0) + 1

    def of(self, ven_id: str) -> int:
        """Those of a VEN."""
        return self._of.get(ven_id, 0)

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client asks."""
        family = CounterMetricFamily("cariflex_vtn_polls", "Polls answered.", labels=["ven_id"])
        for ven_id, polls in self._of.items():
            family.add_metric([ven_id], polls)
        return [family]


POLLS = Polls()
REGISTRY.register(POLLS)


class KnownPolls:
    """Remembers one poll of each VEN, with its empty answer."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._ven_of: dict[bytes, str] = {}  # by the poll's digest
        self._digest_of: dict[str, bytes] = {}
        self._answer_of: dict[str, bytes] = {}
        self._answers: dict[bytes, bytes] = {}  # one for all VENs whose answers differ in their names alone

    def polled(self, ven_id: str) -> bool:
        """Take note of a poll that came the long way; whether there is something for the VEN."""
        self._note(ven_id)
        pending = self._board.pending(ven_id)
        _nothing_for.set(None if pending else ven_id)
        return pending

    def ven_of(self, body: bytes, sender: str | None) -> str | None:
        """Take note of a poll that is known, of a VEN that is registered; which VEN that is, else None.

        Args:
            body: the poll.
            sender: the VEN whose certificate the connection has; None without TLS.
        """
        ven_id = self._ven_of.get(sha256(body).digest())
        if ven_id is None or sender not in (None, ven_id) or self._board.registration(ven_id) is None:
            return None
        self._note(ven_id)
        return ven_id

    def nothing(self, ven_id: str) -> web.Response:
        """The answer to a poll of a VEN that is known, when there is nothing for it."""
        answer = self._answer_of[ven_id].replace(_VEN, ven_id.encode())
        return _Fleeting(body=answer, headers=_HEADERS.copy())

    @contextmanager
    def asked(self) -> Iterator[Callable[[], str | None]]:
        """Around the long way; gives what tells for which VEN it has found nothing."""
        token = _nothing_for.set(None)  # requests of one connection share a context, which is left as it was
        try:
            yield _nothing_for.get
        finally:
            _nothing_for.reset(token)

    def learn(self, ven_id: str | None, body: bytes, response: web.StreamResponse) -> None:
        """After the long way: remember the poll if it was one with an empty answer."""
        if ven_id is None or len(body) > LONGEST_KNOWN_BYTES or b"Signature" in body:
            return
        if not isinstance(response, web.Response) or response.status != 200 or not isinstance(response.body, bytes):
            return
        self._ven_of.pop(self._digest_of.get(ven_id, b""), None)
        digest = self._digest_of[ven_id] = sha256(body).digest()
        self._ven_of[digest] = ven_id
        answer = response.body.replace(ven_id.encode(), _VEN)
        self._answer_of[ven_id] = self._answers.setdefault(answer, answer)

    def _note(self, ven_id: str) -> None:
        self._board.last_poll[ven_id] = self._board.clock()
        POLLS.count(ven_id)
