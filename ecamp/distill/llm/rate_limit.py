"""Rate limit and budgets of an endpoint."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field


class RequestRejected(Exception):
    """A request gets no answer.

    Args:
        kind: Key under which the error is counted: `timeout`, `status 500`, `budget spent`, ...
        message: Message for the report's row.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass
class Limits:
    """Rate limit and budgets of one run; zero means no limit.

    Attributes:
        requests_per_minute: Rate limit.
        tokens: Maximum number of tokens of prompts and answers together.
        cost: Maximum cost, by the two prices.
        price_prompt: Price of a million prompt tokens.
        price_answer: Price of a million answer tokens.
        used_prompt: Prompt tokens so far.
        used_answer: Answer tokens so far.
    """

    requests_per_minute: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    price_prompt: float = 0.0
    price_answer: float = 0.0
    used_prompt: int = 0
    used_answer: int = 0
    _next_start: float = field(default=0.0, init=False)  # earliest time of the next request
    _paused_until: float = field(default=0.0, init=False)

    @property
    def spent(self) -> float:
        """Cost so far."""
        prompt, answer = self.used_prompt * self.price_prompt, self.used_answer * self.price_answer
        return (prompt + answer) / 1e6

    def check(self) -> None:
        """Check the budgets. Answers in flight can still exceed them.

        Raises:
            RequestRejected: A budget is spent; names it.
        """
        used = self.used_prompt + self.used_answer
        if self.tokens and used >= self.tokens:
            raise RequestRejected(
                "budget spent", f"budget spent: {used} of {self.tokens} tokens; not requested"
            )
        if self.cost and self.spent >= self.cost:
            raise RequestRejected(
                "budget spent", f"budget spent: {self.spent:.4g} of {self.cost:.4g}; not requested"
            )

    async def acquire(self) -> None:
        """Wait until one more request may be sent.

        Raises:
            RequestRejected: A budget is spent.
        """
        while True:
            self.check()
            if (wait := self._paused_until - _now()) > 0:
                await asyncio.sleep(wait * (1 + random.random() / 10))  # spread over time
                continue
            if not self.requests_per_minute:
                return
            start = max(_now(), self._next_start)
            self._next_start = start + 60 / self.requests_per_minute
            await asyncio.sleep(start - _now())
            if self._paused_until <= _now():
                return

    def pause(self, seconds: float) -> None:
        """Send no request for some seconds, as the endpoint has requested."""
        self._paused_until = max(self._paused_until, _now() + seconds)
        self._next_start = max(self._next_start, self._paused_until)

    def count(self, prompt: int, answer: int) -> None:
        """Count tokens against the budgets."""
        self.used_prompt += prompt
        self.used_answer += answer


def _now() -> float:
    return asyncio.get_running_loop().time()
