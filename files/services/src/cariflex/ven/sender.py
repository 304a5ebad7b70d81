"""Drains the outbox to FlexMeasures: in order, each value once, for as long as it takes."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from prometheus_client import Counter
from pydantic import SecretStr

from cariflex.durations import format_duration
from cariflex.ven.outbox import AT_ITS_END, Outbox, Post
from cariflex.ven.trace import trace

log = logging.getLogger(__name__)

VALUES = Counter("cariflex_ven_values_stored_total", "Values that FlexMeasures has stored.", ["sensor"])
WITHDRAWN = Counter("cariflex_ven_values_withdrawn_total", "Cells in which values were taken back.", ["sensor"])
FAILURES = Counter("cariflex_ven_send_failures_total", "Attempts to send that failed.", ["reason"])

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
LOOK_SECONDS = 5.0  # the CEM's process queues values too, and cannot wake this one
ASIDE_PAUSE_SECONDS = 60.0  # between two attempts for a value that FlexMeasures refuses
FAILURES_BEFORE_ASIDE = 10  # 5xx answers to one value, while FlexMeasures says it is well
LONGEST_ANSWER = 4000  # characters that are looked at; FlexMeasures' codes come after its explanations
TIMEOUT = aiohttp.ClientTimeout(total=60, connect=5)


class UnreachableError(Exception):
    """FlexMeasures cannot take anything now; `pause` is how long it asked us to wait, if it did."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Sender:
    """One connection to FlexMeasures."""

    def __init__(self, url: str, email: str, password: SecretStr, outbox: Outbox, ven_name: str = "") -> None:
        self._url = url.rstrip("/")
        self._email = email
        self._password = password
        self._outbox = outbox
        self._ven_name = ven_name
        self._token: str | None = None
        self._failures = 0  # in a row, whatever the value
        self.trouble: str | None = None
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Send what is due, then sleep until something may be due or `wake` is set."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            while True:
                self.wake.clear()
                post = self._outbox.next()
                if post is not None:
                    await self._send(http, post)
                    continue
                due = self._outbox.seconds_to_next()
                try:
                    async with asyncio.timeout(LOOK_SECONDS if due is None else min(due, LOOK_SECONDS)):
                        await self.wake.wait()
                except TimeoutError:
                    pass

    async def _send(self, http: aiohttp.ClientSession, post: Post) -> None:
        ids = trace(post.event_id, post.modification_number, self._ven_name) | {"sensor": post.sensor}
        try:
            status, text, pause = await self._post(http, post)
            # Many failures of one value while FlexMeasures is well: it is the value.
            stubborn = status >= 500 and post.attempts + 1 >= FAILURES_BEFORE_ASIDE and await self._well(http)
            if status == 429 or (status >= 500 and not stubborn):
                raise UnreachableError(f"FlexMeasures answered {status}: {text[:500]}", pause)
        except UnreachableError as error:
            self._failures += 1
            self.trouble = str(error)
            wait = error.pause or min(FIRST_PAUSE_SECONDS * 2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
            self._outbox.again(post, wait, self.trouble)
            FAILURES.labels("unreachable").inc()
            log.warning("values not sent yet", extra=ids | {"reason": self.trouble, "again_in_seconds": wait})
            return
        self._failures = 0
        self.trouble = None
        if status in (200, 201, 202):
            self._outbox.delivered(post)
            (WITHDRAWN if post.withdraws else VALUES).labels(post.sensor).inc(len(post.values))
            done = "values taken back" if post.withdraws else "values stored"
            log.info(done, extra=ids | {"values": len(post.values), "start": _moment(post.start)})
            return
        FAILURES.labels("refused").inc()
        problem = f"FlexMeasures answered {status}: {text[:500]}"
        if "INVALID_REPLACEMENT" in text and post.attempts < 3:
            self._outbox.new_belief(post)
            self._outbox.again(post, FIRST_PAUSE_SECONDS, problem)
            log.warning("values already there with this belief time, another is tried", extra=ids)
            return
        self._outbox.again(post, ASIDE_PAUSE_SECONDS, problem, aside=True)
        log.error("values refused, set aside", extra=ids | {"reason": problem})

    async def _post(self, http: aiohttp.ClientSession, post: Post) -> tuple[int, str, float | None]:
        span = timedelta(seconds=post.resolution * len(post.values))
        body: dict[str, Any] = {"start": _moment(post.start), "prior": _moment(post.belief)}
        if post.withdraws:  # FlexMeasures itself stores no empty value; our plugin there takes ours back
            path = "/cariflex/v1/withdraw"
            body |= {"sensor": post.sensor, "end": _moment(post.start + int(span.total_seconds()))}
        elif post.source:  # FlexMeasures itself makes whoever sends them the source of values
            path = "/cariflex/v1/values"
            body |= {"sensor": post.sensor, "values": post.values, "unit": post.unit, "source": post.source}
            if post.belief == AT_ITS_END:
                body["prior"] = None
        else:
            path = f"/api/v3_0/sensors/{post.sensor}/data"
            body |= {"duration": format_duration(span), "values": post.values, "unit": post.unit}
        return await self.post(http, path, body)

    async def post(self, http: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, str, float | None]:
        """Post something as the VEN's user.

        Returns:
            Status, the beginning of the answer's text, and the pause that FlexMeasures asked for, if it did.

        Raises:
            UnreachableError: there was no answer, or the login failed.
        """
        for attempt in (1, 2):
            token = self._token or await self._log_in(http)
            answer = await self._request(http, f"{self._url}{path}", body, {"Authorization": token})
            if answer[0] != 401 or attempt == 2:
                break
            self._token = None  # too old: FlexMeasures judges a token's age when it is used
        return answer

    async def _log_in(self, http: aiohttp.ClientSession) -> str:
        credentials = {"email": self._email, "password": self._password.get_secret_value()}
        url = f"{self._url}/api/requestAuthToken"
        status, text, pause = await self._request(http, url, credentials, {}, token=True)
        if status != 200:
            hint = f"; check the user {self._email} and the secret flexmeasures_ven_password" if status < 429 else ""
            raise UnreachableError(f"FlexMeasures answered the login with {status}{hint}", pause)
        self._token = text
        return text

    async def _request(
        self, http: aiohttp.ClientSession, url: str, body: Any, headers: dict[str, str], *, token: bool = False
    ) -> tuple[int, str, float | None]:
        """Status, text (the token itself for a login) and the pause that a Retry-After asks for."""
        try:
            async with http.post(url, json=body, headers=headers, allow_redirects=False) as answer:
                after = answer.headers.get("Retry-After", "")
                pause = float(after) if after.isascii() and after.isdigit() else None
                text = (await answer.text(errors="replace"))[:LONGEST_ANSWER]
                if token and answer.status == 200:
                    text = str((await answer.json())["auth_token"])
                return answer.status, text, pause
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(f"FlexMeasures cannot be reached at {self._url}: {reason}") from error

    async def _well(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(f"{self._url}/api/v3_0/health/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
