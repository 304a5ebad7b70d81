"""One S2 connection, the same for both sides: messages go out, every message that comes in gets its answer."""

import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType, web

from cariflex.s2.wire import RefusedError, Status, answer, read

log = logging.getLogger(__name__)

Socket = web.WebSocketResponse | ClientWebSocketResponse
Handler = Callable[[Any], Awaitable[None]]

ANSWER_SECONDS = 10.0  # a peer that leaves a message unanswered for longer is not there any more
HEARTBEAT_SECONDS = 10.0


class Door:
    """A websocket that speaks S2.

    Attributes:
        heard: when something came last (monotonic clock).
    """

    def __init__(self, socket: Socket, name: str) -> None:
        self._socket = socket
        self._name = name
        self._unanswered: dict[Any, tuple[float, Any]] = {}
        self.heard = monotonic()

    async def send(self, message: Any) -> None:
        """Send a message that the peer has to answer."""
        self._unanswered[message.message_id] = (monotonic() + ANSWER_SECONDS, message)
        await self._socket.send_str(message.to_json())

    async def close(self, reason: str) -> None:
        """End the connection."""
        log.info("connection ended", extra={"resource": self._name, "reason": reason})
        await self._socket.close(message=reason.encode()[:120])

    @property
    def is_stuck(self) -> bool:
        """Whether the peer owes an answer for too long."""
        return any(deadline < monotonic() for deadline, _ in self._unanswered.values())

    async def listen(self, handle: Handler, refused: Callable[[Any, str], None]) -> None:
        """Take messages until the connection ends.

        Args:
            handle: takes a message; a RefusedError that it raises is the answer, otherwise the answer is OK.
            refused: told which message of ours the peer did not accept, and why.
        """
        async for frame in self._socket:
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            self.heard = monotonic()
            try:
                message = read(frame.data)
                if message.message_type == "ReceptionStatus":
                    self._take_answer(message, refused)
                    continue
                await self._take(message, handle)
            except RefusedError as error:
                log.warning("message refused", extra={"resource": self._name, "reason": str(error)})
                if error.subject is not None:
                    await self._socket.send_str(answer(error.subject, error.status, str(error)).to_json())
                if error.fatal:
                    await self.close(str(error))

    async def _take(self, message: Any, handle: Handler) -> None:
        try:
            await handle(message)
        except RefusedError as error:
            raise RefusedError(error.status, str(error), message.message_id, fatal=error.fatal) from None
        except ConnectionError:
            raise
        except Exception:  # a fault of ours: the peer is told to try again, and goes on
            log.exception("a message could not be handled", extra={"resource": self._name})
            raise RefusedError(Status.TEMPORARY_ERROR, "an error at this side", message.message_id) from None

    async def acknowledge(self, message: Any) -> None:
        """Answer OK; a handler does so itself, before it sends what follows from the message."""
        await self._socket.send_str(answer(message.message_id).to_json())

    def _take_answer(self, message: Any, refused: Callable[[Any, str], None]) -> None:
        _, sent = self._unanswered.pop(message.subject_message_id, (0.0, None))
        if message.status != Status.OK and sent is not None:
            refused(sent, f"{message.status.value}: {message.diagnostic_label or ''}")
