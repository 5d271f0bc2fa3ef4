"""The `llm` distiller: a chat endpoint, a cache of its answers, statements that the report bears out."""

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
from ecamp.distill.llm.ordered_map import in_order
from ecamp.distill.llm.prompt import load_prompt
from ecamp.distill.llm.prompt_text import passages, prompt_of
from ecamp.distill.llm.rate_limit import Limits, RequestRejected
from ecamp.errors import UsageError
from ecamp.storage.files import cache_root
from ecamp.text.lexicon import load_lexicon

_HELD = 16  # reports held for each request in flight: a slow one must not stop the others
_POLL = 0.1  # seconds between looks at what another process is asking


class LLMDistillerConfig(PluginConfig):
    """Where to ask, what, how fast and how much."""

    model: str = Field(min_length=1, description="the model's name at the endpoint")
    endpoint: str = Field(
        default="", description="base address, such as http://127.0.0.1:8000/v1; no default"
    )
    allow_plain_http: bool = Field(
        default=False, description="allow http (not https) to another machine"
    )
    key_env: str = Field(
        default="", description="NAME of the environment variable with the key; empty: no key"
    )
    prompt: str = Field(
        default="statements-1",
        description="statements-1 (JSON with evidence), template-1 (published form), or a .yaml file",
    )
    lexicon: str = Field(default="chest", description="entities: chest, fundus, or a .yaml file")
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema", description="how a JSON answer is asked of the endpoint"
    )
    temperature: float = Field(default=0.0, ge=0, description="0: the likeliest answer")
    max_tokens: int = Field(default=1024, ge=1, description="most tokens of one answer")
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="how the endpoint calls that parameter"
    )
    redact: bool = Field(
        default=False, description="put marks over names, dates, ids before sending"
    )
    concurrency: int = Field(default=16, ge=1, le=1024, description="requests in flight")
    timeout: float = Field(default=120.0, gt=0, description="seconds for one whole answer")
    attempts: int = Field(default=8, ge=1, description="most requests for one answer")
    backoff: float = Field(
        default=0.5, ge=0, description="seconds before the second attempt; then doubled"
    )
    requests_per_minute: float = Field(default=0.0, ge=0, description="0: no limit")
    budget_tokens: int = Field(default=0, ge=0, description="tokens of one run; 0: no limit")
    budget_cost: float = Field(default=0.0, ge=0, description="cost of one run; 0: no limit")
    price_prompt: float = Field(default=0.0, ge=0, description="of a million prompt tokens")
    price_answer: float = Field(default=0.0, ge=0, description="of a million answer tokens")
    cache: str = Field(
        default="", description="folder of answers; default distill/ in $ECAMP_CACHE"
    )
    offline: bool = Field(default=False, description="only cached answers; asks nobody")


class LLMDistiller(Distiller[LLMDistillerConfig]):
    """Asks a language model behind an OpenAI-compatible endpoint."""

    summary = (
        "a language model behind any OpenAI-compatible endpoint; statements checked by the report"
    )
    licence = "Apache-2.0 (the model has its own)"
    citation = "Wang et al., ECAMP, arXiv 2312.13316, section 3.2 (the template prompt)"

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._prompt, self._lexicon = load_prompt(config.prompt), load_lexicon(config.lexicon)
        if config.budget_cost and not (config.price_prompt or config.price_answer):
            raise UsageError(
                "llm: budget_cost without prices.",
                "Say price_prompt and price_answer, of a million tokens each.",
            )
        if not config.offline:
            self._endpoint = check_endpoint(config.endpoint, config.allow_plain_http)
        self._counts: Counter[str] = Counter()

    def identity_fields(self) -> dict[str, Any]:
        """What decides the answers; not where the model runs, nor how fast it is asked."""
        config = self.config.model_dump(
            include={"model", "response_format", "temperature", "max_tokens", "redact"}
        )
        return {**config, "prompt": self._prompt.digest(), "lexicon": self._lexicon.digest()}

    def counts(self) -> Mapping[str, int]:
        """Of all runs of this object: requests, answers from the cache, tokens, errors by kind ..."""
        return dict(+self._counts)

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """See `Distiller`. Answers are on disk before they are yielded.

        Raises:
            UsageError: The key's variable is not set.
            StoppedRun: The endpoint refuses the key.
            EcampError: The cache cannot be written.
        """
        key = Key() if self.config.offline else read_key(self.config.key_env)
        workers = self.config.concurrency
        return in_order(reports, lambda: self._session(key), workers, _HELD * workers)

    @contextlib.asynccontextmanager
    async def _session(self, key: Key) -> AsyncIterator[Callable[[Report], Awaitable[Distilled]]]:
        config = self.config
        folder = Path(config.cache).expanduser() if config.cache else cache_root() / "distill"
        cache, client = AnswerCache(folder), None
        try:
            if not config.offline:
                client = _make_client(config, self._endpoint, key, self._counts)
                await client.open()
            asker = _Asker(cache, client, self._counts)
            reader = AnswerReader(self._lexicon, self._prompt.answer)
            yield lambda report: self._distill_one(report, asker, reader)
        finally:
            if client is not None:
                await client.close()
            cache.close()

    @cached_property
    def _around(self) -> tuple[bytes, bytes]:
        """What stands before and behind a report in a request; the same for all of them."""
        config, place = self.config, "\0report\0"
        request: dict[str, Any] = {
            "model": config.model,
            "messages": self._prompt.messages(place, self._lexicon),
            "temperature": config.temperature,
            config.max_tokens_name: config.max_tokens,
        }
        if self._prompt.answer == "json" and config.response_format == "json_schema":
            schema = {"name": "statements", "strict": True, "schema": answer_schema(self._lexicon)}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self._prompt.answer == "json" and config.response_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        before, behind = json.dumps(request).encode().split(json.dumps(place)[1:-1].encode())
        return before, behind

    def request(self, text: str) -> bytes:
        """What is sent for one text; its hash is the key of the cache."""
        before, behind = self._around
        return before + json.dumps(text)[1:-1].encode() + behind

    async def _distill_one(
        self, report: Report, asker: _Asker, reader: AnswerReader
    ) -> Distilled:  # fmt: skip
        parts = passages(report, self.config.redact)
        for part in parts:
            for kind, count in part.sent.counts.items():
                self._counts[f"redacted: {kind}"] += count
        if not parts:
            return Distilled(report.id)
        try:
            reply = await asker.reply(self.request(prompt_of(parts)))
            statements, dropped = reader.read(reply.text, parts, cut=reply.finish == "length")
        except RequestRejected as refused:
            self._counts[f"error: {refused.kind}"] += 1
            return Distilled(report.id, error=refused.message)
        except UnreadableAnswer as unreadable:
            self._counts["error: unreadable answer"] += 1
            return Distilled(report.id, error=f"answer of {self.config.model}: {unreadable}")
        for reason, count in dropped.items():
            self._counts[f"dropped: {reason}"] += count
        return Distilled(report.id, statements, dropped)


class _Asker:
    """Finds an answer in the cache, or asks for it, once."""

    def __init__(
        self, cache: AnswerCache, client: ChatClient | None, counts: Counter[str]
    ) -> None:  # fmt: skip
        self._cache, self._client, self._counts = cache, client, counts
        self._asking: dict[bytes, asyncio.Future[Reply]] = {}

    async def reply(self, request: bytes) -> Reply:
        """The answer to a request; equal ones in flight share it.

        Raises:
            RequestRejected: There is none.
        """
        key = cache_key(request)
        if (future := self._asking.get(key)) is not None:
            self._counts["shared"] += 1
            return await future
        if (reply := self._cache.get(key)) is not None:
            self._counts["cached"] += 1
            return reply
        if self._client is None:
            raise RequestRejected("not in the cache", "not in the cache of answers, and offline")
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._ask(self._client, key, request)
            future.set_result(reply)
            return reply
        except Exception as error:
            future.set_exception(error)
            future.exception()  # there may be nobody else to take note of it
            raise
        finally:
            del self._asking[key]

    async def _ask(self, client: ChatClient, key: bytes, request: bytes) -> Reply:
        while not self._cache.claim(key):
            await asyncio.sleep(_POLL)  # another process asks just this
        try:
            # Another process may have asked since this one looked.
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
