"""Client of a chat endpoint: connections, retries, and the interpretation of responses.

httpx2 is the successor of httpx (same author and interface), and a dependency of huggingface_hub anyway.
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
_FAULT_OF_REPORT = ("status 400", "status 413", "status 422")  # others count against the endpoint
_RETRIED = frozenset((408, 409, 425, 429))  # in addition to all 5xx
_BYTES_PER_TOKEN = 3  # used where the endpoint does not count; overestimates tokens of English


class StoppedRun(EcampError):
    """The endpoint refuses every request: the key is wrong or missing."""


class _Failed(Exception):
    """One attempt failed.

    Args:
        kind: Key under which the error is counted.
        message: Message for the report's row.
        retry: Whether another attempt may succeed.
        wait: Seconds to wait, as requested by the endpoint.
    """

    def __init__(self, kind: str, message: str, retry: bool = True, wait: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.message, self.retry, self.wait = kind, message, retry, wait


class ChatClient:
    """Client of an endpoint, with one connection per request in flight.

    Uses the library's transports without its client: the client adds cookies, redirects (which could
    send reports elsewhere) and credentials from files, none of which is wanted, and takes a fifth more
    time. A single pool of 64 connections would be searched for each request: another fifth.

    Args:
        endpoint: Where requests are sent.
        key: Key of the endpoint.
        limits: Rate and budgets.
        counts: Receives the numbers of requests, retries and tokens.
        concurrency: Maximum number of requests in flight.
        timeout: Seconds for a complete answer, however slowly it arrives.
        attempts: Maximum number of requests per answer.
        backoff: Seconds before the second attempt; doubles with each further one.
    """

    def __init__(
        self, endpoint: Endpoint, key: Key, limits: Limits, counts: Counter[str], *,
        concurrency: int, timeout: float, attempts: int, backoff: float,
    ) -> None:  # fmt: skip
        self._endpoint, self._key, self._limits, self._counts = endpoint, key, limits, counts
        self._timeout, self._attempts, self._backoff = timeout, attempts, backoff
        self._concurrency = concurrency
        self._failures = 0  # consecutive
        self._key_error = ""

    async def open(self) -> None:
        """Create the connections; call it in the event loop that sends the requests."""
        import httpx2

        endpoint = self._endpoint
        # A proxy set in the environment must not receive requests to this machine.
        proxied = not endpoint.local and not proxy_bypass(endpoint.host)
        proxy = getproxies().get(endpoint.scheme) if proxied else None
        context = httpx2.create_ssl_context()
        single = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
        self._idle = [
            httpx2.AsyncHTTPTransport(verify=context, limits=single, proxy=proxy)
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
        for transport in self._idle:
            await transport.aclose()

    async def ask(self, request: bytes) -> Reply:
        """Send a request, retrying until answered or given up. At most `concurrency` at a time.

        Args:
            request: Body of the request, JSON.

        Raises:
            RequestRejected: This request gets no answer; contains the reason.
            StoppedRun: No request will get an answer.
        """
        transport = self._idle.pop()
        try:
            return await self._ask(transport, request)
        finally:
            self._idle.append(transport)

    async def _ask(self, transport: httpx2.AsyncHTTPTransport, request: bytes) -> Reply:
        for attempt in range(1, self._attempts + 1):
            self._check_available()
            await self._limits.acquire()
            self._check_available()
            self._counts["requests"] += 1
            self._counts["retries"] += attempt > 1
            try:
                reply = await self._attempt(transport, request)
            except _Failed as failed:
                if not failed.retry or attempt == self._attempts:
                    raise self._rejection(failed, attempt) from None
                self._limits.pause(failed.wait)  # pauses all requests: the endpoint is busy
                backoff = min(LONGEST_BACKOFF, self._backoff * 2 ** (attempt - 1))
                await asyncio.sleep(backoff * (0.5 + random.random() / 2))
            else:
                self._failures = 0
                return reply
        raise AssertionError("unreachable")

    def _check_available(self) -> None:
        """Raise if the endpoint refuses the key or was given up."""
        if self._key_error:
            raise self._stopped_run()
        if self._failures >= GIVE_UP:
            raise RequestRejected(
                "endpoint given up",
                f"{self._endpoint.base}: not requested after {GIVE_UP} consecutive failures. Run again later.",
            )

    def _stopped_run(self) -> StoppedRun:
        return StoppedRun(
            self._key_error,
            "Set an environment variable to the right key and give its name: key_env=NAME. Run again: it"
            " resumes.",
        )

    def _rejection(self, failed: _Failed, attempt: int) -> RequestRejected:
        if failed.kind not in _FAULT_OF_REPORT:
            self._failures += 1
        tries = f" ({attempt} attempts)" if attempt > 1 else ""
        return RequestRejected(failed.kind, f"{self._endpoint.base}: {failed.message}{tries}")

    async def _attempt(self, transport: httpx2.AsyncHTTPTransport, request: bytes) -> Reply:
        import httpx2

        try:
            # Covers the complete answer; the library's own timeout applies to each chunk, so that an
            # answer that trickles in would never exceed it.
            async with asyncio.timeout(self._timeout):
                response = await transport.handle_async_request(
                    httpx2.Request("POST", self._url, headers=self._headers, content=request)
                )
                try:
                    body = await response.aread()
                finally:
                    await response.aclose()
        except TimeoutError:
            raise _Failed("timeout", f"no complete answer within {self._timeout:g} s") from None
        except httpx2.TransportError as error:
            unreachable = isinstance(error, httpx2.ConnectError)
            problem = "cannot be reached" if unreachable else "connection lost"
            raise _Failed("connection", f"{problem} ({type(error).__name__})") from None
        except httpx2.DecodingError:
            raise _Failed("bad response", "the response cannot be decompressed") from None
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
            raise _Failed("bad response", "the response is not a chat completion") from None
        self._limits.count(prompt, answer)
        self._counts["prompt tokens"] += prompt
        self._counts["answer tokens"] += answer
        return Reply(text, finish, prompt, answer)

    def _bad_status(self, status: int, body: bytes, wait: float) -> _Failed:
        message = self._key.hidden(_message(body))[:200]
        text = f"status {status}" + (f": {message}" if message else "")
        if status in (401, 403):
            problem = "refuses the key" if self._key.headers() else "requires a key"
            self._key_error = f"{self._endpoint.base} {problem}, {text}."
            raise self._stopped_run()
        if status in _RETRIED or status >= 500:
            return _Failed(f"status {status}", text, retry=wait <= LONGEST_WAIT, wait=wait)
        if status == 404:
            text += "; check the address (usually ends in /v1) and the model's name"
        elif status == 400:
            text += "; check max_tokens, and response_format: json_object or none for older servers"
        elif 300 <= status < 400:
            text += "; it has moved: give the new address"
        return _Failed(f"status {status}", text, retry=False)


def _message(body: bytes) -> str:
    """Extract an endpoint's error message, on one line."""
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
    """Parse the seconds to wait from a number or a date; 0 if it is neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
