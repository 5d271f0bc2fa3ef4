"""Masking, loss weights and insertion of distilled text as the published code does them.

Facts from ToniChopp/ECAMP, commit d02d16d, `pretrain_datasets.py`. Where it differs from the paper
(arXiv 2312.13316, section 3.2): descriptors are never masked by force (docs/published-flaws.md#f27),
an entity is a single whole token matched exactly (#f30), and template words that are descriptors
too get the raised weight (#f28).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ecamp.text.tokenizer import token_id

# docs/published-flaws.md#f30. Lower-case vocabularies have no COPD; the published one splits aerate
# and hyperinflate. Those three never match there.
_WORDS = """
    abnormality abscess aerate aorta atelectasis bronchiectasis calcification cardiomediastinal
    cardiomegaly catheter chf collapse congestion consolidation contour COPD deformity dilation
    distention edema effusion embolism emphysema engorgement fibrosis fracture granuloma hernia
    hilar hyperinflate hemidiaphragm infiltrate mass nodule obscure opacity perihilar pneumonia
    pneumothorax sarcoidosis silhouette thickening tuberculosis vasculature
"""
ENTITIES = frozenset(_WORDS.split())
TEMPLATES = ("there is no evidence of", "there is no")  # the longer one is tried first
TEMPLATE_WEIGHT = 0.05
NOT_SEARCHED = 4  # last positions, where no template may start
DESCRIPTORS = 2  # words to the left of an entity
P_INSERT, P_ENTITY, P_OTHER, P_PLAIN = 0.8, 0.75, 0.70, 0.75


class Source(Protocol):
    """Source of random draws: a `random.Random`, or a list of recorded draws."""

    def random(self) -> float:
        """Draw a number in [0, 1)."""

    def randint(self, a: int, b: int) -> int:
        """Draw an integer in a .. b, both included."""


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that masking uses.

    Attributes:
        entities: Tokens that are an entity word.
        pieces: Tokens that continue a word (`##...`).
        templates: Negations as token sequences, the longer one first.
        mask: Id of [MASK]. pad: Id of [PAD]. stop: Id of the full stop, -1 without one.
    """

    entities: frozenset[int]
    pieces: frozenset[int]
    templates: tuple[tuple[int, ...], ...]
    mask: int
    pad: int
    stop: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Look the published words up; words and templates that are not whole tokens cannot match."""
        id_of = tokenizer.get_vocab()
        templates = [[id_of.get(word) for word in text.split()] for text in TEMPLATES]
        return cls(
            entities=frozenset(id_of[word] for word in ENTITIES if word in id_of),
            pieces=frozenset(index for word, index in id_of.items() if word.startswith("##")),
            templates=tuple(
                tuple(index for index in template if index is not None)
                for template in templates
                if None not in template
            ),
            mask=token_id(tokenizer, "[MASK]"),
            pad=token_id(tokenizer, "[PAD]"),
            stop=id_of.get(".", -1),
        )


@dataclass(frozen=True)
class Plan:
    """The part of a report's masking that is fixed before anything is drawn.

    Attributes:
        end: First position that is not masked: the first padding, or the last position.
        heads: Positions before it that draw: first pieces of words, ascending.
        entities: Heads that are entities; they draw again, and only that draw counts.
        context: Descriptors, in the order found. They act on the weights only.
        p_other: Probability of a word that is not an entity.
    """

    end: int
    heads: tuple[int, ...]
    entities: tuple[int, ...]
    context: tuple[int, ...]
    p_other: float


def insert_distilled(report: str, distilled: str, source: Source) -> str:
    """Put the distilled text before, between or after the report's parts, with probability 0.8.

    The report is split at every full stop, that of "2.5 cm" included (docs/published-flaws.md#f31);
    each part gets its full stop back, the last one too, and the doubled ones are then made single.
    """
    if source.random() >= P_INSERT:
        return report.replace("..", ".")
    parts = report.split(".")
    boundary = source.randint(0, len(parts))
    before, after = (
        "".join(f"{part}." for part in group) for group in (parts[:boundary], parts[boundary:])
    )
    return f"{before}{distilled}{after}".replace("..", ".")


def plan(ids: Sequence[int], vocabulary: Vocabulary) -> Plan:
    """Find heads, entities and descriptors.

    Args:
        ids: One report, [CLS] first, padded. The last position is never read.
    """
    last = len(ids) - 1
    end = next((i for i in range(1, last) if ids[i] == vocabulary.pad), last)
    heads = [i for i in range(1, end) if ids[i] not in vocabulary.pieces]
    entities = [i for i in heads if ids[i] in vocabulary.entities]
    context: dict[int, None] = {}  # a set that keeps the order
    for i in entities:
        # Skips a full stop, but continues to the word before it.
        for j in range(i - 1, max(i - 1 - DESCRIPTORS, 0), -1):
            if ids[j] != vocabulary.stop:
                context[j] = None
    # Entities after a literal "[PAD]" are not masked, but the report counts as having entities.
    has_entities = bool(entities) or not vocabulary.entities.isdisjoint(ids[1:last])
    return Plan(
        end, tuple(heads), tuple(entities), tuple(context), P_OTHER if has_entities else P_PLAIN
    )


def mask(ids: Sequence[int], plan: Plan, vocabulary: Vocabulary, source: Source) -> list[int]:
    """Draw the masked positions of one report.

    Draws: one per head from left to right (an entity's has no effect), then one per entity. A piece
    follows the token before it, so pieces of an entity word, which is decided last, never do.

    Returns:
        The ids with [MASK] in place.
    """
    masked, draw = list(ids), source.random
    heads, entities = set(plan.heads), set(plan.entities)
    for i in range(1, plan.end):
        if i not in heads:
            hidden = masked[i - 1] == vocabulary.mask
        else:
            hidden = draw() < plan.p_other and i not in entities
        if hidden:
            masked[i] = vocabulary.mask
    for entity in plan.entities:
        if draw() < P_ENTITY:
            masked[entity] = vocabulary.mask
    return masked


def weigh(ids: Sequence[int], plan: Plan, vocabulary: Vocabulary) -> np.ndarray:
    """Compute the loss weight of each position of one report.

    Returns:
        float32 (S,); padding keeps 1, and the sum is S.
    """
    size = len(ids)
    weights = np.ones(size, np.float32)
    template: set[int] = set()
    i = 0
    while i < size - NOT_SEARCHED:
        match = next((t for t in vocabulary.templates if tuple(ids[i : i + len(t)]) == t), ())
        template.update(range(i, i + len(match)))
        i += len(match) or 1
    if not template:
        return weights
    weights[list(template)] = TEMPLATE_WEIGHT
    # D, M, L of docs/published-flaws.md#f28: template tokens, descriptors, and those that are both.
    freed, descriptors = len(template), len(plan.context)
    both = len(template.intersection(plan.context))
    reduction = 1 - TEMPLATE_WEIGHT
    if descriptors:
        factor = (reduction * (freed - both) + descriptors) / (descriptors - reduction * both)
        weights[list(plan.context)] *= np.float32(factor)
    else:
        weights *= np.float32(size / (size - reduction * freed))
    return weights


def mask_batch(
    ids: Tensor, vocabulary: Vocabulary, sources: Sequence[Source]
) -> tuple[Tensor, Tensor]:
    """Mask and weigh a batch.

    Args:
        ids: int64 (batch, S), padded. sources: One per report.

    Returns:
        Masked ids int64 (batch, S); weights float32 (batch, S).
    """
    masked, weights = [], []
    for row, source in zip(ids.tolist(), sources, strict=True):
        report_plan = plan(row, vocabulary)
        masked.append(mask(row, report_plan, vocabulary, source))
        weights.append(weigh(row, report_plan, vocabulary))
    device = ids.device
    return torch.tensor(masked, device=device), torch.from_numpy(np.stack(weights)).to(device)
