"""Polls, answered without parsing: they are nearly all that a VTN ever gets, and differ in the VEN's name alone.

A poll is known by its exact bytes around the name, and only after openleadr has validated and parsed those bytes with
the name of some VEN, and answered that there is nothing. Whatever else differs in a single byte takes the long way.
What can change between two polls is asked anew each time: whether the VEN is registered, and whether there is something
for it. So thousands of VENs that come at once, after the VTN has started, are known as soon as one of them is.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from cariflex.vtn.board import Board

LONGEST_KNOWN_BYTES = 4096  # a poll has 500; a signed one is new each time and has more
MOST_FORMS = 16  # one for each kind of client; each is compared with every poll

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


class Known(NamedTuple):
    """A poll that is known: of which VEN, and the answer to it when there is nothing."""

    ven_id: str
    empty: bytes

    def nothing(self) -> web.Response:
        """That answer."""
        return _Fleeting(body=self.empty.replace(_VEN, self.ven_id.encode()), headers=_HEADERS.copy())


class KnownPolls:
    """Remembers in which forms VENs poll: what stands before and after the name, with the empty answer."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._forms: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()

    def polled(self, ven_id: str) -> bool:
        """Take note of a poll that came the long way; whether there is something for the VEN."""
        self._note(ven_id)
        pending = self._board.pending(ven_id)
        _nothing_for.set(None if pending else ven_id)
        return pending

    def known(self, body: bytes, sender: str | None) -> Known | None:
        """Take note of a poll that is known, of a VEN that is registered; None for any other.

        Args:
            body: the poll.
            sender: the VEN whose certificate the connection has; None without TLS.
        """
        for (before, after), empty in self._forms.items():
            if body.startswith(before) and body.endswith(after):
                # a name that is registered has nothing in it that XML would read otherwise
                ven_id = body[len(before) : len(body) - len(after)].decode(errors="replace")
                if sender in (None, ven_id) and self._board.registration(ven_id) is not None:
                    self._note(ven_id)
                    return Known(ven_id, empty)
        return None

    @contextmanager
    def asked(self) -> Iterator[Callable[[], str | None]]:
        """Around the long way; gives what tells for which VEN it has found nothing."""
        token = _nothing_for.set(None)  # requests of one connection share a context, which is left as it was
        try:
            yield _nothing_for.get
        finally:
            _nothing_for.reset(token)

    def learn(self, ven_id: str | None, body: bytes, response: web.StreamResponse) -> None:
        """After the long way: remember the form of the poll if it was one with an empty answer."""
        if ven_id is None or len(body) > LONGEST_KNOWN_BYTES or b"Signature" in body:
            return
        if b"<!" in body or b"&" in body:
            return  # where texts can be comments or written in another way, the name may stand elsewhere
        if not isinstance(response, web.Response) or response.status != 200 or not isinstance(response.body, bytes):
            return
        before, name, after = body.partition(ven_id.encode())
        once = name not in after and response.body.count(name) == 1
        if once and before.endswith(b"venID>") and after.startswith(b"</"):
            self._forms[before, after] = response.body.replace(name, _VEN)
            while len(self._forms) > MOST_FORMS:
                self._forms.popitem(last=False)

    def _note(self, ven_id: str) -> None:
        self._board.last_poll[ven_id] = self._board.clock()
        POLLS.count(ven_id)
