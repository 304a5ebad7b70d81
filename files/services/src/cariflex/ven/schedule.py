"""The maintenance windows of the next days, told to the VTN ahead (EiOpt)."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from time import monotonic

from openleadr.utils import generate_id

from cariflex.ven.client import VtnClient
from cariflex.ven.outbox import Outbox
from cariflex.ven.policy import Rule, announced

log = logging.getLogger(__name__)

AHEAD_SECONDS = 7 * 86400
LOOK_SECONDS = 3600.0  # between two looks at the windows of the next days


class Schedule:
    """Keeps the opt schedules at the VTN as the rules say; the VTN sees by them what it can ask for."""

    def __init__(self, outbox: Outbox, rules: Sequence[Rule], timezone: tzinfo) -> None:
        self._outbox = outbox
        self._rules = rules
        self._timezone = timezone
        self._next: float | None = 0.0

    def begin(self) -> None:
        """A new session: the VTN may be another one, with opt schedules where it had none."""
        self._next = 0.0

    async def tell(self, client: VtnClient) -> None:
        """Send what is new and cancel what is gone, once an hour; a VTN without EiOpt is tried once a session."""
        if self._next is None or monotonic() < self._next:
            return
        self._next = monotonic() + LOOK_SECONDS
        now = int(time.time())
        wanted = announced(self._rules, now, now + AHEAD_SECONDS, self._timezone)
        known = self._outbox.announced()
        done = True
        for window in wanted:
            if done and window not in known.values():
                done = await self._create(client, window)
        for opt_id, window in known.items():
            if done and window not in wanted:
                done = await self._cancel(client, opt_id)
        if not done:
            self._next = None
            reason = client.trouble or "it refused one"
            log.warning("the VTN does not take our opt schedules", extra={"reason": reason})

    async def _create(self, client: VtnClient, window: tuple[int, int]) -> bool:
        opt_id = generate_id()
        start, end = window
        component = {"dtstart": datetime.fromtimestamp(start, UTC), "duration": timedelta(seconds=end - start)}
        kind, _ = await client.ask(
            "EiOpt",
            "oadrCreateOpt",
            opt_id=opt_id,
            opt_type="optOut",
            opt_reason="x-schedule",
            vavailability={"components": [component]},
            created_date_time=datetime.now(UTC),
            request_id=generate_id(),
        )
        if kind != "oadrCreatedOpt":
            return False
        self._outbox.announce(opt_id, window)
        log.info("opt schedule sent", extra={"opt_id": opt_id})
        return True

    async def _cancel(self, client: VtnClient, opt_id: str) -> bool:
        kind, _ = await client.ask("EiOpt", "oadrCancelOpt", opt_id=opt_id, request_id=generate_id())
        if kind is None:
            return False
        self._outbox.unannounce(opt_id)  # after an error too: the VTN does not have it
        log.info("opt schedule cancelled", extra={"opt_id": opt_id})
        return True
