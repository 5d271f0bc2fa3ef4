"""Masking policy as data: lexicon, templates and probabilities, compiled for a tokenizer."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from tokenizers import Tokenizer

from ecamp.api.plugin import PluginConfig
from ecamp.ops.mask_tokens import BOUNDARY, CONTINUATION, ENTITY, SPECIAL, TEMPLATE, MaskTables
from ecamp.text.lexicon import Lexicon, form_tokens
from ecamp.text.tokenizer import SPECIALS, token_id

# Marks that end a clause: no descriptor lies across a token that contains one (`.`, but also `).` or
# `..` where a tokenizer keeps runs of punctuation together).
BOUNDARIES = frozenset(".,;:?!()")


class MaskingPolicy(PluginConfig):
    """Probabilities of the paper's entity-aware masking (arXiv 2312.13316, section 3.2)."""

    lexicon: str = Field(default="chest", description="name of a shipped lexicon, or a YAML file")
    p_entity: float = Field(
        default=0.75, ge=0, le=1, description="probability of masking an entity word"
    )
    p_other: float = Field(
        default=0.70, ge=0, le=1, description="probability of masking another word"
    )
    p_plain: float = Field(
        default=0.75, ge=0, le=1,
        description="probability of masking a word of a report without any entity",
    )  # fmt: skip
    descriptor_words: int = Field(
        default=2, ge=0, le=8, description="words left of an entity that are always masked"
    )
    template_weight: float = Field(
        default=0.05, ge=0, le=1, description="loss weight of template words"
    )


def compile_policy(policy: MaskingPolicy, tokenizer: Tokenizer) -> MaskTables:
    """Turn a policy into the flat tables that `mask_tokens` reads.

    Each surface form becomes its token sequence under the tokenizer; forms with an unknown token
    can never match and are left out.

    Raises:
        MissingError, UsageError: The lexicon cannot be read.
        DataError: The tokenizer has no [MASK].
    """
    lexicon = Lexicon.load(policy.lexicon)
    size = tokenizer.get_vocab_size()
    flags = np.zeros(size, np.uint8)
    for token, index in tokenizer.get_vocab().items():
        if token in SPECIALS:
            flags[index] |= SPECIAL
        if token.startswith("##"):
            flags[index] |= CONTINUATION
        if BOUNDARIES & set(token) and not any(map(str.isalnum, token)):
            flags[index] |= BOUNDARY
    forms = {(TEMPLATE, text) for text in lexicon.templates}
    forms |= {(ENTITY, form) for group in lexicon.entities.values() for form in group}
    patterns: set[tuple[int, ...]] = set()
    for role, text in forms:
        tokens = form_tokens(tokenizer, text)
        if tokens:
            patterns.add((role, *tokens))
    # By first token, then the longest first: the first match found is the longest.
    ordered = sorted(patterns, key=lambda p: (p[1], -len(p), p))
    longest = max((len(p) for p in ordered), default=1)
    table = np.full((len(ordered), longest + 1), -1, np.int32)
    start = np.zeros(size + 1, np.int32)
    for row, pattern in enumerate(ordered):
        table[row, 0] = pattern[0]
        table[row, 1] = len(pattern) - 1
        table[row, 2 : 1 + len(pattern)] = pattern[1:]
        start[pattern[1] + 1] += 1
    return MaskTables(
        flags=torch.from_numpy(flags),
        patterns=torch.from_numpy(table),
        pattern_start=torch.from_numpy(np.cumsum(start).astype(np.int32)),
        mask_id=token_id(tokenizer, "[MASK]"),
        p_entity=policy.p_entity,
        p_other=policy.p_other,
        p_plain=policy.p_plain,
        descriptor_words=policy.descriptor_words,
        template_weight=policy.template_weight,
    )
