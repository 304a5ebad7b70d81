"""Questions to FlexMeasures' API, as the VEN's user."""

from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import SecretStr

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)


class FlexMeasuresError(Exception):
    """FlexMeasures does not do what was asked; `pause` is how long it asked us to wait, if it did."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class AwayError(FlexMeasuresError):
    """FlexMeasures cannot be asked now."""


class FlexMeasures:
    """One login; used within `async with`."""

    def __init__(self, url: str, email: str, password: SecretStr) -> None:
        self._url = url.rstrip("/")
        self._email = email
        self._password = password
        self._token: str | None = None
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "FlexMeasures":
        self._http = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def ask(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Call `path`, which is below /api/v3_0/ unless it begins with a slash; logs in when it has to.

        Returns:
            Status below 500 and not 429, and the answer's JSON object; empty when it is none.

        Raises:
            FlexMeasuresError: there was no answer, the login failed, or FlexMeasures cannot now.
        """
        status = 401
        where = path if path.startswith("/") else f"/api/v3_0/{path}"
        answer: dict[str, Any] = {}
        for _ in range(2):
            token = self._token or await self._log_in()
            headers = {"Authorization": token}
            status, answer = await self._request(method, where, headers, body, query)
            if status != 401:
                break
            self._token = None  # too old: FlexMeasures judges a token's age when it is used
        return status, answer

    async def _log_in(self) -> str:
        credentials = {"email": self._email, "password": self._password.get_secret_value()}
        status, answer = await self._request("POST", "/api/requestAuthToken", {}, credentials, None)
        token = answer.get("auth_token")
        if status != 200 or not isinstance(token, str):
            raise FlexMeasuresError(
                f"FlexMeasures answered the login with {status}; check the user {self._email} and the secret "
                "flexmeasures_ven_password"
            )
        self._token = token
        return token

    async def _request(
        self, method: str, path: str, headers: dict[str, str], body: Any, query: Mapping[str, str] | None
    ) -> tuple[int, dict[str, Any]]:
        if self._http is None:
            raise AwayError("FlexMeasures is not connected")
        try:
            async with self._http.request(
                method, f"{self._url}{path}", json=body, params=query, headers=headers, allow_redirects=False
            ) as answer:
                after = answer.headers.get("Retry-After", "")
                pause = float(after) if after.isascii() and after.isdigit() else None
                if answer.status == 429 or answer.status >= 500:
                    raise AwayError(f"FlexMeasures answered {path} with {answer.status}", pause)
                try:
                    content = await answer.json(content_type=None)
                except ValueError:
                    content = None
                return answer.status, content if isinstance(content, dict) else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise AwayError(f"FlexMeasures cannot be reached at {self._url}: {reason}") from error
