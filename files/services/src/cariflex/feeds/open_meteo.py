"""Asks Open-Meteo for the weather, and no more often than there is something new.

It says when a model's newest run could be had; the forecast is asked for only when that is another one, and kept in a
file. Its free service allows 10,000 questions a day; these are some 30.
"""

import asyncio
import email.utils
import json
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import Counter
from pydantic import SecretStr

from cariflex.feeds.weather import Place, Run, Weather, WeatherError, question, run_of, weather_of

log = logging.getLogger(__name__)

URL = "https://api.open-meteo.com"
MODEL, MODEL_RUNS = "gfs_global", "ncep_gfs013"  # NOAA's, hourly and world-wide; what Open-Meteo calls its runs
USER_AGENT = "cariflex-ems/1 (energy management; one site)"
TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)
ATTEMPTS = 3
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 30.0  # between attempts
FIRST_REST_SECONDS = 60.0  # after all of them have failed, twice as long each time
LOOK_SECONDS = 3600.0  # between two questions for a newer run
LONGEST_ASKED_SECONDS = 6 * 3600.0  # of a Retry-After; beyond it we ask again all the same
LARGEST_ANSWER = 1 << 20  # bytes; ours have 20,000

ANSWERS = Counter(
    "cariflex_feeds_open_meteo_answers_total", "Questions to Open-Meteo, by what became of them.", ["result"]
)


class OpenMeteoError(Exception):
    """There is no weather now; the text says why. `pause` is how long Open-Meteo asked us to wait, if it did."""

    def __init__(self, reason: str, pause: float | None = None, *, again: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause
        self.again = again  # another attempt may help at once


class OpenMeteo:
    """The weather of one place. The file keeps it over a restart, so that a restart asks nothing."""

    def __init__(
        self,
        place: Place,
        cache: Path,
        *,
        url: str = URL,
        model: str = MODEL,
        model_runs: str = MODEL_RUNS,
        api_key: SecretStr | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._cache = cache
        self._url = url.rstrip("/")
        self._model = model
        self._model_runs = model_runs
        self._api_key = api_key
        self._clock = clock
        self._not_before = 0.0
        self._looked: float | None = None
        self._failures = 0  # in a row
        self.trouble: str | None = None  # why the last question failed
        self.last: Weather | None = self._kept()

    async def weather(self) -> Weather:
        """What the newest run says; from memory where it is not time to ask, or where asking fails.

        Raises:
            OpenMeteoError: it cannot be had, and none that is known reaches beyond now.
        """
        now = self._clock()
        if now >= self._not_before and (self._looked is None or now - self._looked >= LOOK_SECONDS):
            try:
                await self._look()
                self.trouble, self._looked, self._failures = None, now, 0
            except OpenMeteoError as error:
                pause = error.pause or min(FIRST_REST_SECONDS * 2.0**self._failures, LOOK_SECONDS)
                self.trouble, self._not_before = str(error), now + pause
                self._failures = min(self._failures + 1, 20)
                log.warning("no new weather", extra={"reason": self.trouble, "again_in_seconds": pause})
        if self.last is None or self.last.end <= now:
            raise OpenMeteoError(self.trouble or "no weather is known", max(0.0, self._not_before - now) or None)
        return self.last

    async def _look(self) -> None:
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        async with aiohttp.ClientSession(timeout=TIMEOUT, headers=headers) as http:
            try:
                run = run_of(await self._ask(http, f"/data/{self._model_runs}/static/meta.json", {}))
                if self.last is not None and run == self.last.run:
                    ANSWERS.labels("nothing new").inc()
                    return
                answer = await self._ask(http, "/v1/forecast", question(self._place, self._model))
                self.last = weather_of(answer, run, self._place)
            except WeatherError as error:
                ANSWERS.labels("unusable").inc()
                raise OpenMeteoError(f"Open-Meteo's answer cannot be used: {error}") from None
        self._keep(run, answer)
        ANSWERS.labels("new").inc()
        holes = {name: count for name, count in self.last.holes.items() if count}
        facts = {"run": _moment(run.began), "available": _moment(run.available), "until": _moment(self.last.end)}
        log.info("weather", extra=facts | {"values_missing": holes})

    # --- asking --------------------------------------------------------------------------------------------------

    async def _ask(self, http: aiohttp.ClientSession, path: str, query: dict[str, str]) -> Any:
        """An answer, after as many attempts as are reasonable now."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._ask_once(http, path, query)
            except OpenMeteoError as error:
                ANSWERS.labels("failed").inc()
                if attempt == ATTEMPTS or not error.again:
                    raise
                pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  not all sites at the same moment
        raise AssertionError("unreachable")

    async def _ask_once(self, http: aiohttp.ClientSession, path: str, query: dict[str, str]) -> Any:
        where = f"{self._url}{path}"
        if self._api_key is not None:
            query = query | {"apikey": self._api_key.get_secret_value()}
        try:
            async with http.get(where, params=query, allow_redirects=False) as answer:
                text = await answer.content.read(LARGEST_ANSWER + 1)
                while len(text) <= LARGEST_ANSWER and (more := await answer.content.read(LARGEST_ANSWER)):
                    text += more
                status, after = answer.status, answer.headers.get("Retry-After", "")
        except TimeoutError as error:
            raise OpenMeteoError(f"{where} does not answer within {TIMEOUT.total:.0f} s", again=True) from error
        except (aiohttp.ClientError, OSError) as error:
            # without its text where it could hold the key
            reason = type(error).__name__ if self._api_key else str(error) or type(error).__name__
            raise OpenMeteoError(f"{where} cannot be reached: {reason}", again=True) from error
        if status == 429:
            pause = _asked_pause(after, self._clock())
            said = f"{where} answered 429, too many questions: {_reason(text)}"
            raise OpenMeteoError(said, LOOK_SECONDS if pause is None else pause)
        if status != 200:
            raise OpenMeteoError(f"{where} answered {status}: {_reason(text)}", again=status >= 500)
        if len(text) > LARGEST_ANSWER:
            raise OpenMeteoError(f"{where} answered with more than {LARGEST_ANSWER} bytes")
        try:
            return json.loads(text)
        except ValueError as error:
            raise OpenMeteoError(f"{where} answered with something that is no JSON: {error}", again=True) from None

    # --- remembering ---------------------------------------------------------------------------------------------

    def _keep(self, run: Run, answer: Any) -> None:
        kept = {"run": [run.began, run.available], "model": self._model, "answer": answer}
        new = self._cache.with_suffix(".new")
        try:
            new.write_text(json.dumps(kept), encoding="utf-8")
            new.replace(self._cache)
        except OSError as error:  # only the next start asks once more
            log.warning("the weather is not kept", extra={"file": str(self._cache), "reason": str(error)})

    def _kept(self) -> Weather | None:
        try:
            kept = json.loads(self._cache.read_text(encoding="utf-8"))
            if kept["model"] != self._model:
                return None
            began, available = kept["run"]
            return weather_of(kept["answer"], Run(began, available), self._place)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, WeatherError) as error:
            log.warning("the weather that was kept is not read", extra={"file": str(self._cache), "reason": str(error)})
            return None


def _asked_pause(after: str, now: float) -> float | None:
    """Seconds that a Retry-After asks for, as a number or as a date; None where it asks for nothing readable."""
    if after.isascii() and after.isdigit():
        return min(float(after), LONGEST_ASKED_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(after).timestamp()
    except (ValueError, TypeError):
        return None
    return min(max(moment - now, 0.0), LONGEST_ASKED_SECONDS)


def _reason(text: bytes) -> str:
    """What Open-Meteo says is wrong: `{"error": true, "reason": …}`, else the beginning of its answer."""
    said = text[:1000].decode(errors="replace")
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    return str(answer.get("reason", said) if isinstance(answer, dict) else said)[:200]


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
