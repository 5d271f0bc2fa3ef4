"""How much and how fast an endpoint may be asked."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field


class RequestRejected(Exception):
    """A report gets no answer.

    Args:
        kind: What the error counts under: `timeout`, `status 500`, `budget spent` ...
        message: For the report's row.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass
class Limits:
    """Pace and budgets of one run; zero is no limit.

    Attributes:
        tokens: Most tokens of prompts and answers.
        cost: Most money, by the two prices.
        price_prompt, price_answer: Of a million tokens.
        used_prompt, used_answer: Tokens so far.
    """

    requests_per_minute: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    price_prompt: float = 0.0
    price_answer: float = 0.0
    used_prompt: int = 0
    used_answer: int = 0
    _next: float = field(default=0.0, init=False)
    _paused: float = field(default=0.0, init=False)

    @property
    def spent(self) -> float:
        """Money so far."""
        prompt, answer = self.used_prompt * self.price_prompt, self.used_answer * self.price_answer
        return (prompt + answer) / 1e6

    def check(self) -> None:
        """Stop where a budget is spent. Answers in flight can still carry it over the line.

        Raises:
            RequestRejected: Says which budget.
        """
        used = self.used_prompt + self.used_answer
        if self.tokens and used >= self.tokens:
            raise RequestRejected(
                "budget spent", f"budget spent: {used} of {self.tokens} tokens; not asked"
            )
        if self.cost and self.spent >= self.cost:
            raise RequestRejected(
                "budget spent", f"budget spent: {self.spent:.4g} of {self.cost:.4g}; not asked"
            )

    async def turn(self) -> None:
        """Wait until one more request may go out.

        Raises:
            RequestRejected: A budget is spent.
        """
        while True:
            self.check()
            if (wait := self._paused - _now()) > 0:
                await asyncio.sleep(wait * (1 + random.random() / 10))  # not all at one moment
                continue
            if not self.requests_per_minute:
                return
            at = max(_now(), self._next)
            self._next = at + 60 / self.requests_per_minute
            await asyncio.sleep(at - _now())
            if self._paused <= _now():
                return

    def pause(self, seconds: float) -> None:
        """Let no request out for a while: the endpoint has asked for it."""
        self._paused = max(self._paused, _now() + seconds)
        self._next = max(self._next, self._paused)

    def use(self, prompt: int, answer: int) -> None:
        """Count tokens."""
        self.used_prompt += prompt
        self.used_answer += answer


def _now() -> float:
    return asyncio.get_running_loop().time()
