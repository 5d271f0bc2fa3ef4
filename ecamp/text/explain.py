"""Explains the masking of one report: roles of its words, hidden words and their loss weights.

The draws are those of `mask_tokens`, as in training; this module only groups tokens back into the
words of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from tokenizers import Tokenizer

from ecamp.ops.mask_tokens import (
    CONTINUATION,
    DESCRIPTOR,
    ENTITY,
    NO_ROLE,
    OTHER,
    TEMPLATE,
    MaskedTokens,
    mask_tokens,
)
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.tokenizer import encode_reports

ROLES = {
    ENTITY: "entity",
    DESCRIPTOR: "descriptor",
    TEMPLATE: "template",
    OTHER: "other",
    NO_ROLE: "unknown",  # [UNK]: never masked
}
CUT = "cut"  # after the last token that fits


@dataclass(frozen=True)
class Word:
    """A word of the report: a head token and its `##` pieces.

    Attributes:
        start: Index of its first character in the report.
        end: Index after its last character.
        text: The word itself.
        role: One of the values of `ROLES`, or `CUT`.
        pieces: Number of its tokens within the window.
    """

    start: int
    end: int
    text: str
    role: str
    pieces: int


@dataclass(frozen=True)
class Draw:
    """One draw of the masking.

    Attributes:
        seed: Seed of the draw.
        step: Training step of the draw.
        masked: Per word, whether it is hidden.
        weights: Per word, the loss weight of each of its tokens; 0 where it is not masked.
        tokens_masked: Number of tokens to predict.
        weight_sum: Sum of the weights of all tokens; equals `tokens_masked`.
    """

    seed: int
    step: int
    masked: tuple[bool, ...]
    weights: tuple[float, ...]
    tokens_masked: int
    weight_sum: float


@dataclass(frozen=True)
class Explanation:
    """A report with its words and some draws of the masking.

    Attributes:
        text: The report.
        policy: The masking policy.
        words: Words of the report, in order.
        draws: One per seed.
        tokens: Number of tokens within the window, [CLS] included.
    """

    text: str
    policy: MaskingPolicy
    words: tuple[Word, ...]
    draws: tuple[Draw, ...]
    tokens: int

    @property
    def has_entity(self) -> bool:
        """Whether the text contains an entity; the other words are then masked less often."""
        return any(word.role == "entity" for word in self.words)

    def chance(self, role: str) -> float:
        """Return the probability that a word of a role is masked in this text."""
        rest = self.policy.p_other if self.has_entity else self.policy.p_plain
        fixed = {"entity": self.policy.p_entity, "descriptor": 1.0, "unknown": 0.0, CUT: 0.0}
        return fixed.get(role, rest)


def explain(
    text: str,
    tokenizer: Tokenizer,
    policy: MaskingPolicy,
    seeds: tuple[int, ...] = (0,),
    step: int = 0,
    max_length: int = 256,
) -> Explanation:
    """Mask one report as training would, as sample 0, once per seed.

    Args:
        text: The report.
        tokenizer: WordPiece tokenizer with the tokens that masking needs.
        policy: Masking policy.
        seeds: At least one.
        step: Training step.
        max_length: Length of the window in tokens, [CLS] included; at least 2.

    Raises:
        MissingError, UsageError: The policy's lexicon cannot be read.
    """
    tables = compile_policy(policy, tokenizer)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    # A word starts at each token that is not a `##` piece; all its tokens are masked, or none.
    heads = [
        index
        for index, token in enumerate(encoding.ids)
        if index == 0 or not int(tables.flags[token]) & CONTINUATION
    ]
    ids, lengths = encode_reports(tokenizer, [text], max_length)
    inputs = (torch.from_numpy(ids), torch.from_numpy(lengths), torch.zeros(1, dtype=torch.int64))
    results = [mask_tokens(*inputs, step, seed, tables) for seed in seeds]
    roles = results[0].roles[0].tolist()
    words = [
        _word(text, encoding.offsets[head:stop], head + 1, roles, max_length)
        for head, stop in pairwise([*heads, len(encoding.ids)])
    ]
    draws = [
        _draw(seed, step, masked, [head + 1 for head in heads], max_length)
        for seed, masked in zip(seeds, results, strict=True)
    ]
    return Explanation(text, policy, tuple(words), tuple(draws), int(lengths[0]))


def _draw(seed: int, step: int, masked: MaskedTokens, heads: list[int], max_length: int) -> Draw:
    mask, weights = masked.mask[0].tolist(), masked.weights[0].tolist()
    inside = [head < max_length for head in heads]
    return Draw(
        seed,
        step,
        tuple(fits and mask[head] for head, fits in zip(heads, inside, strict=True)),
        tuple(weights[head] if fits else 0.0 for head, fits in zip(heads, inside, strict=True)),
        sum(mask),
        float(sum(weights)),
    )


def _word(
    text: str, offsets: list[tuple[int, int]], head: int, roles: list[int], max_length: int
) -> Word:
    start, end = offsets[0][0], offsets[-1][1]
    pieces = max(0, min(len(offsets), max_length - head))
    role = ROLES[roles[head]] if pieces else CUT
    return Word(start, end, text[start:end], role, pieces)
