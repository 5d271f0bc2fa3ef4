"""One request to a chat endpoint: connections, retries, and what its answers mean.

httpx2 is what httpx goes on as (same author and interface), and comes with huggingface_hub anyway.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from ecamp.distill.llm.cache import Reply
from ecamp.distill.llm.endpoint import Endpoint, Key
from ecamp.distill.llm.rate_limit import Limits, RequestRejected
from ecamp.errors import EcampError

if TYPE_CHECKING:
    import httpx2

LONGEST_BACKOFF, LONGEST_WAIT = 60.0, 600.0  # seconds
GIVE_UP = 20  # requests that fail in a row, each after all its attempts
_ABOUT_REPORT = ("status 400", "status 413", "status 422")  # other failures are the endpoint's
_AGAIN = frozenset((408, 409, 425, 429))  # beside all 5xx
_BYTES_PER_TOKEN = 3  # where the endpoint does not count; on the high side of English


class StoppedRun(EcampError):
    """The endpoint will answer nothing: wrong or missing key."""


class _Failed(Exception):
    """One attempt failed.

    Args:
        again: Whether another one may help.
        wait: Seconds that the endpoint asks for.
    """

    def __init__(self, kind: str, message: str, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.message, self.again, self.wait = kind, message, again, wait


class ChatClient:
    """Asks an endpoint, over a connection of its own for each request in flight.

    Transports, without the library's client around them: that one adds cookies, redirects (which could
    lead reports elsewhere) and credentials from files, none of which is wanted, and a fifth more time.
    One pool of 64 connections would search them all for each request: another fifth.

    Args:
        timeout: Seconds for a whole answer, however slowly it comes.
        attempts: Most requests for one answer.
        backoff: Seconds before the second attempt; doubles each time.
        counts: Where requests, retries and tokens are counted.
    """

    def __init__(
        self, endpoint: Endpoint, key: Key, limits: Limits, counts: Counter[str], *,
        concurrency: int, timeout: float, attempts: int, backoff: float,
    ) -> None:  # fmt: skip
        self._endpoint, self._key, self._limits, self._counts = endpoint, key, limits, counts
        self._timeout, self._attempts, self._backoff = timeout, attempts, backoff
        self._concurrency = concurrency
        self._failures = 0  # in a row
        self._stopped = ""

    async def open(self) -> None:
        """Make the transports. To be called in the loop that asks."""
        import httpx2

        endpoint = self._endpoint
        # A proxy of the environment must not see what is meant for this machine.
        proxied = not endpoint.local and not proxy_bypass(endpoint.host)
        proxy = getproxies().get(endpoint.scheme) if proxied else None
        context = httpx2.create_ssl_context()
        one = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
        self._free = [
            httpx2.AsyncHTTPTransport(verify=context, limits=one, proxy=proxy)
            for _ in range(self._concurrency)
        ]
        self._url = httpx2.URL(endpoint.url)
        self._headers = httpx2.Headers(
            {
                "host": self._url.netloc.decode(),
                "accept": "application/json",
                "content-type": "application/json",
                "user-agent": "ecamp",
                **self._key.headers(),
            }
        )

    async def close(self) -> None:
        """Close all connections."""
        for transport in self._free:
            await transport.aclose()

    async def ask(self, request: bytes) -> Reply:
        """Ask until there is an answer or no hope. At most `concurrency` may ask at a time.

        Raises:
            RequestRejected: No answer for this request; says why.
            StoppedRun: No answer for any.
        """
        transport = self._free.pop()
        try:
            return await self._ask(transport, request)
        finally:
            self._free.append(transport)

    async def _ask(self, transport: httpx2.AsyncHTTPTransport, request: bytes) -> Reply:
        for attempt in range(1, self._attempts + 1):
            self._check_hope()
            await self._limits.turn()
            self._check_hope()
            self._counts["requests"] += 1
            self._counts["retries"] += attempt > 1
            try:
                reply = await self._attempt(transport, request)
            except _Failed as failed:
                if not failed.again or attempt == self._attempts:
                    raise self._refusal(failed, attempt) from None
                self._limits.pause(failed.wait)  # for all: it is the endpoint that is busy
                backoff = min(LONGEST_BACKOFF, self._backoff * 2 ** (attempt - 1))
                await asyncio.sleep(backoff * (0.5 + random.random() / 2))
            else:
                self._failures = 0
                return reply
        raise AssertionError("unreachable")

    def _check_hope(self) -> None:
        if self._stopped:
            raise self._stop()
        if self._failures >= GIVE_UP:
            raise RequestRejected(
                "endpoint given up",
                f"{self._endpoint.base}: {GIVE_UP} requests failed in a row; not asked. Run again later.",
            )

    def _stop(self) -> StoppedRun:
        return StoppedRun(
            self._stopped,
            "Put the right key into an environment variable, and its name into key_env=NAME. Run again: it"
            " resumes.",
        )

    def _refusal(self, failed: _Failed, attempt: int) -> RequestRejected:
        if failed.kind not in _ABOUT_REPORT:
            self._failures += 1
        tries = f" ({attempt} attempts)" if attempt > 1 else ""
        return RequestRejected(failed.kind, f"{self._endpoint.base}: {failed.message}{tries}")

    async def _attempt(self, transport: httpx2.AsyncHTTPTransport, request: bytes) -> Reply:
        import httpx2

        try:
            # For the whole answer; the library's own is for one piece, and a slow drip passes it.
            async with asyncio.timeout(self._timeout):
                response = await transport.handle_async_request(
                    httpx2.Request("POST", self._url, headers=self._headers, content=request)
                )
                try:
                    body = await response.aread()
                finally:
                    await response.aclose()
        except TimeoutError:
            raise _Failed("timeout", f"no whole answer within {self._timeout:g} s") from None
        except httpx2.TransportError as error:
            what = "cannot be reached" if isinstance(error, httpx2.ConnectError) else "broke off"
            raise _Failed("connection", f"{what} ({type(error).__name__})") from None
        except httpx2.DecodingError:
            raise _Failed("bad response", "answered what cannot be unpacked") from None
        if response.status_code == 200:
            return self._reply(body, request)
        wait = _retry_after(response.headers.get("retry-after", ""))
        raise self._bad_status(response.status_code, body, wait)

    def _reply(self, body: bytes, request: bytes) -> Reply:
        try:
            value = json.loads(body)
            choice = value["choices"][0]
            text = choice["message"].get("content")
            text = "" if text is None else text
            finish = choice.get("finish_reason") or "stop"
            if not isinstance(text, str) or not isinstance(finish, str):
                raise TypeError
            text, finish = self._key.hidden(text), self._key.hidden(finish)
            usage = value.get("usage") or {}
            prompt = int(usage.get("prompt_tokens") or len(request) // _BYTES_PER_TOKEN)
            answer = int(usage.get("completion_tokens") or len(text) // _BYTES_PER_TOKEN)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise _Failed("bad response", "answered no chat completion") from None
        self._limits.use(prompt, answer)
        self._counts["prompt tokens"] += prompt
        self._counts["answer tokens"] += answer
        return Reply(text, finish, prompt, answer)

    def _bad_status(self, status: int, body: bytes, wait: float) -> _Failed:
        said = self._key.hidden(_message(body))[:200]
        text = f"status {status}" + (f": {said}" if said else "")
        if status in (401, 403):
            what = "refuses the key" if self._key.headers() else "wants a key"
            self._stopped = f"{self._endpoint.base} {what}, {text}."
            raise self._stop()
        if status in _AGAIN or status >= 500:
            return _Failed(f"status {status}", text, again=wait <= LONGEST_WAIT, wait=wait)
        if status == 404:
            text += "; check the address (it mostly ends in /v1) and the model's name"
        elif status == 400:
            text += "; check max_tokens, and response_format: json_object or none for older servers"
        elif 300 <= status < 400:
            text += "; it has moved: name the new address"
        return _Failed(f"status {status}", text, again=False)


def _message(body: bytes) -> str:
    """What an endpoint says of an error, on one line."""
    text = body.decode("utf-8", "replace")
    try:
        value: Any = json.loads(text)
        error = value.get("error", value)
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail") or ""
        text = str(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())


def _retry_after(header: str) -> float:
    """Seconds to wait, from a number or a date; 0 where there is neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
