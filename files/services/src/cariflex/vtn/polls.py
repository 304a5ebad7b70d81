"""Polls, answered without parsing: they are nearly all that a VTN ever gets, and a VEN's are always the same.

A poll is known by its exact bytes, and only after openleadr has validated and parsed those bytes, and answered that
there is nothing. Whatever differs in a single byte takes the long way. What can change between two polls is asked anew
each time: whether the VEN is registered, and whether there is something for it.
"""

from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import Counter

from cariflex.vtn.board import Board

POLLS = Counter("cariflex_vtn_polls_total", "Polls answered.", ["ven_id"])

LONGEST_KNOWN_BYTES = 4096  # a poll has 500; a signed one is new each time and has more

_HEADERS = CIMultiDict({"Content-Type": "application/xml; charset=utf-8"})

# The VEN whose poll the long way has just found nothing for.
_nothing_for: ContextVar[str | None] = ContextVar("nothing_for", default=None)


@dataclass(frozen=True, slots=True)
class _Known:
    ven_id: str
    answer: bytes
    polls: Counter


class KnownPolls:
    """Remembers one poll of each VEN, with its empty answer."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._known: dict[bytes, _Known] = {}
        self._body_of: dict[str, bytes] = {}

    def polled(self, ven_id: str) -> bool:
        """Take note of a poll that came the long way; whether there is something for the VEN."""
        self._board.last_poll[ven_id] = self._board.clock()
        POLLS.labels(ven_id).inc()
        pending = self._board.pending(ven_id)
        _nothing_for.set(None if pending else ven_id)
        return pending

    def ven_of(self, body: bytes, sender: str | None) -> str | None:
        """Take note of a poll that is known, of a VEN that is registered; which VEN that is, else None.

        Args:
            body: the poll.
            sender: the VEN whose certificate the connection has; None without TLS.
        """
        known = self._known.get(body)
        if known is None or sender not in (None, known.ven_id) or self._board.registration(known.ven_id) is None:
            return None
        self._board.last_poll[known.ven_id] = self._board.clock()
        known.polls.inc()
        return known.ven_id

    def nothing(self, body: bytes) -> web.Response:
        """The answer to a poll that is known when there is nothing for its VEN."""
        return web.Response(body=self._known[body].answer, headers=_HEADERS.copy())

    def begin(self) -> None:
        """Before the long way. Requests of one connection share a context."""
        _nothing_for.set(None)

    def learn(self, body: bytes, response: web.StreamResponse) -> None:
        """After the long way: remember the poll if it was one with an empty answer."""
        ven_id = _nothing_for.get()
        if ven_id is None or len(body) > LONGEST_KNOWN_BYTES or b"Signature" in body:
            return
        if not isinstance(response, web.Response) or response.status != 200 or not isinstance(response.body, bytes):
            return
        self._known.pop(self._body_of.get(ven_id, b""), None)
        self._body_of[ven_id] = body
        self._known[body] = _Known(ven_id, response.body, POLLS.labels(ven_id))
