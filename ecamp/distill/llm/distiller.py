"""The `llm` distiller: a chat endpoint, a cache of its answers, statements checked against the report."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ecamp.api.distiller import Distilled, Distiller, Report
from ecamp.api.plugin import PluginConfig
from ecamp.distill.llm.answer import AnswerReader, UnreadableAnswer, answer_schema
from ecamp.distill.llm.cache import AnswerCache, Reply, cache_key
from ecamp.distill.llm.client import ChatClient
from ecamp.distill.llm.endpoint import Endpoint, Key, check_endpoint, read_key
from ecamp.distill.llm.ordered_map import ordered_map
from ecamp.distill.llm.prompt import Prompt
from ecamp.distill.llm.prompt_text import passages, prompt_text
from ecamp.distill.llm.rate_limit import Limits, RequestRejected
from ecamp.errors import UsageError
from ecamp.storage.files import cache_root
from ecamp.text.lexicon import Lexicon

_WINDOW = 16  # reports in memory per request in flight: a slow one must not stop the others
_POLL = 0.1  # seconds between checks for an answer that another process has requested


class LLMDistillerConfig(PluginConfig):
    """Options: model, endpoint, prompt, rate and budgets."""

    model: str = Field(min_length=1, description="name of the model at the endpoint")
    endpoint: str = Field(
        default="",
        description="base address, such as http://127.0.0.1:8000/v1; there is no default",
    )
    allow_plain_http: bool = Field(
        default=False, description="allow http (not https) to another machine"
    )
    key_env: str = Field(
        default="",
        description="name of the environment variable that contains the key; empty: no key",
    )
    prompt: str = Field(
        default="statements-1",
        description="statements-1 (JSON with evidence), template-1 (published form), or a .yaml file",
    )
    lexicon: str = Field(default="chest", description="entities: chest, fundus, or a .yaml file")
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema", description="how a JSON answer is requested from the endpoint"
    )
    temperature: float = Field(
        default=0.0, ge=0, description="sampling temperature; 0: the most likely answer"
    )
    max_tokens: int = Field(default=1024, ge=1, description="maximum number of tokens per answer")
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="name of that parameter at the endpoint"
    )
    redact: bool = Field(
        default=False, description="replace names, dates and ids by marks before sending"
    )
    concurrency: int = Field(
        default=16, ge=1, le=1024, description="maximum number of requests in flight"
    )
    timeout: float = Field(default=120.0, gt=0, description="seconds for a complete answer")
    attempts: int = Field(default=8, ge=1, description="maximum number of requests per answer")
    backoff: float = Field(
        default=0.5,
        ge=0,
        description="seconds before the second attempt; doubled for each further one",
    )
    requests_per_minute: float = Field(default=0.0, ge=0, description="rate limit; 0: none")
    budget_tokens: int = Field(
        default=0, ge=0, description="maximum number of tokens per run; 0: no limit"
    )
    budget_cost: float = Field(default=0.0, ge=0, description="maximum cost per run; 0: no limit")
    price_prompt: float = Field(default=0.0, ge=0, description="price of a million prompt tokens")
    price_answer: float = Field(default=0.0, ge=0, description="price of a million answer tokens")
    cache: str = Field(
        default="", description="folder of stored answers; default: distill/ in $ECAMP_CACHE"
    )
    offline: bool = Field(default=False, description="use cached answers only; send nothing")


class LLMDistiller(Distiller[LLMDistillerConfig]):
    """Distiller that asks a language model behind an OpenAI-compatible endpoint."""

    summary = "a language model behind any OpenAI-compatible endpoint; the report must confirm its answers"
    licence = "Apache-2.0 (the model has its own)"
    citation = "Wang et al., ECAMP, arXiv 2312.13316, section 3.2 (the template prompt)"

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._prompt, self._lexicon = Prompt.load(config.prompt), Lexicon.load(config.lexicon)
        if config.budget_cost and not (config.price_prompt or config.price_answer):
            raise UsageError(
                "llm: budget_cost needs prices.",
                "Give price_prompt and price_answer, per million tokens.",
            )
        if not config.offline:
            self._endpoint = check_endpoint(config.endpoint, config.allow_plain_http)
        self._counts: Counter[str] = Counter()

    def identity_fields(self) -> dict[str, Any]:
        """Return everything that determines the answers; endpoint and speed do not."""
        config = self.config.model_dump(
            include={"model", "response_format", "temperature", "max_tokens", "redact"}
        )
        return {**config, "prompt": self._prompt.digest(), "lexicon": self._lexicon.digest()}

    def counts(self) -> Mapping[str, int]:
        """Return counts of all runs of this object: requests, cached answers, tokens, errors by kind."""
        return dict(+self._counts)

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """Yield one result per report, see `Distiller`. Answers are on disk before they are yielded.

        Raises:
            UsageError: The environment variable of the key is not set.
            StoppedRun: The endpoint refuses the key.
            EcampError: The cache cannot be written.
        """
        key = Key() if self.config.offline else read_key(self.config.key_env)
        workers = self.config.concurrency
        return ordered_map(reports, lambda: self._session(key), workers, _WINDOW * workers)

    @contextlib.asynccontextmanager
    async def _session(self, key: Key) -> AsyncIterator[Callable[[Report], Awaitable[Distilled]]]:
        config = self.config
        folder = Path(config.cache).expanduser() if config.cache else cache_root() / "distill"
        cache, client = AnswerCache(folder), None
        try:
            if not config.offline:
                client = _make_client(config, self._endpoint, key, self._counts)
                await client.open()
            answers = _Answers(cache, client, self._counts)
            reader = AnswerReader(self._lexicon, self._prompt.answer)
            yield lambda report: self._distill_one(report, answers, reader)
        finally:
            if client is not None:
                await client.close()
            cache.close()

    @cached_property
    def _request_frame(self) -> tuple[bytes, bytes]:
        """The bytes before and after the report in a request; the same for all reports."""
        config, placeholder = self.config, "\0report\0"
        request: dict[str, Any] = {
            "model": config.model,
            "messages": self._prompt.messages(placeholder, self._lexicon),
            "temperature": config.temperature,
            config.max_tokens_name: config.max_tokens,
        }
        if self._prompt.answer == "json" and config.response_format == "json_schema":
            schema = {"name": "statements", "strict": True, "schema": answer_schema(self._lexicon)}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self._prompt.answer == "json" and config.response_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        separator = json.dumps(placeholder)[1:-1].encode()
        before, after = json.dumps(request).encode().split(separator)
        return before, after

    def request(self, text: str) -> bytes:
        """Build the body of the request for one text; its hash is the key in the cache."""
        before, after = self._request_frame
        return before + json.dumps(text)[1:-1].encode() + after

    async def _distill_one(
        self, report: Report, answers: _Answers, reader: AnswerReader
    ) -> Distilled:  # fmt: skip
        parts = passages(report, self.config.redact)
        for part in parts:
            for kind, count in part.sent.counts.items():
                self._counts[f"redacted: {kind}"] += count
        if not parts:
            return Distilled(report.id)
        try:
            reply = await answers.get(self.request(prompt_text(parts)))
            statements, dropped = reader.read(reply.text, parts, cut=reply.finish == "length")
        except RequestRejected as rejected:
            self._counts[f"error: {rejected.kind}"] += 1
            return Distilled(report.id, error=rejected.message)
        except UnreadableAnswer as unreadable:
            self._counts["error: unreadable answer"] += 1
            return Distilled(report.id, error=f"answer of {self.config.model}: {unreadable}")
        for reason, count in dropped.items():
            self._counts[f"dropped: {reason}"] += count
        return Distilled(report.id, statements, dropped)


class _Answers:
    """Answers to requests, from the cache or from the endpoint; each one is requested once."""

    def __init__(
        self, cache: AnswerCache, client: ChatClient | None, counts: Counter[str]
    ) -> None:  # fmt: skip
        self._cache, self._client, self._counts = cache, client, counts
        self._in_flight: dict[bytes, asyncio.Future[Reply]] = {}

    async def get(self, request: bytes) -> Reply:
        """Return the answer to a request; equal requests in flight share it.

        Raises:
            RequestRejected: There is no answer.
        """
        key = cache_key(request)
        if (future := self._in_flight.get(key)) is not None:
            self._counts["shared"] += 1
            return await future
        if (reply := self._cache.get(key)) is not None:
            self._counts["cached"] += 1
            return reply
        if self._client is None:
            raise RequestRejected("not in the cache", "not in the cache of answers, and offline")
        future = self._in_flight[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._ask(self._client, key, request)
            future.set_result(reply)
            return reply
        except Exception as error:
            future.set_exception(error)
            future.exception()  # marks it as retrieved: nobody else may be waiting for it
            raise
        finally:
            del self._in_flight[key]

    async def _ask(self, client: ChatClient, key: bytes, request: bytes) -> Reply:
        while not self._cache.claim(key):
            await asyncio.sleep(_POLL)  # another process has sent the same request
        try:
            # Another process may have stored it since the cache was read.
            if (reply := self._cache.get(key)) is not None:
                self._counts["cached"] += 1
                return reply
            reply = await client.ask(request)
            self._cache.put(key, reply)
            return reply
        finally:
            self._cache.release(key)


def _make_client(config: Any, endpoint: Endpoint, key: Key, counts: Counter[str]) -> ChatClient:
    limits = Limits(
        config.requests_per_minute, config.budget_tokens, config.budget_cost,
        config.price_prompt, config.price_answer,
    )  # fmt: skip
    return ChatClient(
        endpoint, key, limits, counts, concurrency=config.concurrency,
        timeout=config.timeout, attempts=config.attempts, backoff=config.backoff,
    )  # fmt: skip
