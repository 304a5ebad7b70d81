"""oadrDistributeEvent, rendered once for all VENs that get the same events.

What VENs get differs in nothing but their own name and the request's id. So a message is rendered with a mark where
these stand, and kept until its events change.
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime

from openleadr.messaging import create_message

from cariflex.vtn.events import Event, Status, distribution, status_for

KEPT = 64  # messages; VENs of one group share one

# Characters for private use, which nothing else in a message contains.
_VEN, _REQUEST = "\ue000", "\ue001"

_Version = tuple[str, int, datetime, Status]


class Distributions:
    """The messages of one VTN, as the answer to a poll."""

    def __init__(self, vtn_id: str) -> None:
        self._vtn_id = vtn_id
        self._rendered: OrderedDict[tuple[_Version, ...], str] = OrderedDict()

    def message(self, events: Sequence[Event], ven_id: str, now: datetime, request_id: str) -> str:
        """What openleadr would render of `distribution` for a VEN that polled."""
        key = tuple(
            (event.event_id, event.modification_number, event.modified_at, status_for(event, ven_id, now))
            for event in events
        )
        text = self._rendered.pop(key, None) or self._render(events, ven_id, now)
        self._rendered[key] = text
        while len(self._rendered) > KEPT:
            self._rendered.popitem(last=False)
        return text.replace(_VEN, ven_id).replace(_REQUEST, request_id)

    def _render(self, events: Sequence[Event], ven_id: str, now: datetime) -> str:
        payload = distribution(self._vtn_id, events, ven_id, now, name=_VEN)
        # as openleadr answers a poll, which has no id
        payload |= {"response": payload["response"] | {"request_id": None}, "request_id": _REQUEST}
        return str(create_message("oadrDistributeEvent", **payload))
