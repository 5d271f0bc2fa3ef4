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
    """What draws: a `random.Random`, or a list of recorded draws."""

    def random(self) -> float:
        """Draw a number in [0, 1)."""

    def randint(self, a: int, b: int) -> int:
        """Draw an integer in a .. b, both included."""


@dataclass(frozen=True)
class Vocabulary:
    """The token ids that masking looks at.

    Attributes:
        entities: Tokens that are an entity word.
        pieces: Tokens that go on with a word (`##...`).
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
        words = tokenizer.get_vocab()
        templates = [[words.get(word) for word in text.split()] for text in TEMPLATES]
        return cls(
            entities=frozenset(words[word] for word in ENTITIES if word in words),
            pieces=frozenset(index for word, index in words.items() if word.startswith("##")),
            templates=tuple(
                tuple(index for index in template if index is not None)
                for template in templates
                if None not in template
            ),
            mask=token_id(tokenizer, "[MASK]"),
            pad=token_id(tokenizer, "[PAD]"),
            stop=words.get(".", -1),
        )


@dataclass(frozen=True)
class Plan:
    """What of a report's masking is settled before anything is drawn.

    Attributes:
        end: Where masking stops: the first padding, or the last position.
        heads: Positions before it that draw: first pieces of words, ascending.
        entities: Those of them that are entities; they draw again, and only that counts.
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
    at = source.randint(0, len(parts))
    before, after = ("".join(f"{part}." for part in some) for some in (parts[:at], parts[at:]))
    return f"{before}{distilled}{after}".replace("..", ".")


def plan(ids: Sequence[int], vocabulary: Vocabulary) -> Plan:
    """Find heads, entities and descriptors.

    Args:
        ids: One report, [CLS] first, padded. The last position is never looked at.
    """
    last = len(ids) - 1
    end = next((at for at in range(1, last) if ids[at] == vocabulary.pad), last)
    heads = [at for at in range(1, end) if ids[at] not in vocabulary.pieces]
    entities = [at for at in heads if ids[at] in vocabulary.entities]
    context: dict[int, None] = {}  # a set that keeps the order
    for at in entities:
        # Leaves a full stop out, but continues to the word before it.
        for left in range(at - 1, max(at - 1 - DESCRIPTORS, 0), -1):
            if ids[left] != vocabulary.stop:
                context[left] = None
    # Entities behind a literal "[PAD]" are not masked, yet count as "the report has some".
    some = bool(entities) or not vocabulary.entities.isdisjoint(ids[1:last])
    return Plan(end, tuple(heads), tuple(entities), tuple(context), P_OTHER if some else P_PLAIN)


def mask(ids: Sequence[int], plan: Plan, vocabulary: Vocabulary, source: Source) -> list[int]:
    """Draw for one report.

    Draws: one per head from left to right (an entity's has no effect), then one per entity. A piece
    follows the token before it, so pieces of an entity word, which is decided last, never do.

    Returns:
        The ids with [MASK] in place.
    """
    masked, draw = list(ids), source.random
    heads, entities = set(plan.heads), set(plan.entities)
    for at in range(1, plan.end):
        if at not in heads:
            hidden = masked[at - 1] == vocabulary.mask
        else:
            hidden = draw() < plan.p_other and at not in entities
        if hidden:
            masked[at] = vocabulary.mask
    for entity in plan.entities:
        if draw() < P_ENTITY:
            masked[entity] = vocabulary.mask
    return masked


def weigh(ids: Sequence[int], plan: Plan, vocabulary: Vocabulary) -> np.ndarray:
    """Loss weight of each position of one report.

    Returns:
        float32 (S,); padding keeps 1, and the sum is S.
    """
    size = len(ids)
    weights = np.ones(size, np.float32)
    template: set[int] = set()
    at = 0
    while at < size - NOT_SEARCHED:
        found = next((t for t in vocabulary.templates if tuple(ids[at : at + len(t)]) == t), ())
        template.update(range(at, at + len(found)))
        at += len(found) or 1
    if not template:
        return weights
    weights[list(template)] = TEMPLATE_WEIGHT
    # D, M, L of docs/published-flaws.md#f28: template tokens, descriptors, and those that are both.
    freed, described = len(template), len(plan.context)
    both = len(template.intersection(plan.context))
    lost = 1 - TEMPLATE_WEIGHT
    if described:
        factor = (lost * (freed - both) + described) / (described - lost * both)
        weights[list(plan.context)] *= np.float32(factor)
    else:
        weights *= np.float32(size / (size - lost * freed))
    return weights


def mask_batch(
    ids: Tensor, vocabulary: Vocabulary, sources: Sequence[Source]
) -> tuple[Tensor, Tensor]:
    """Mask and weigh a batch.

    Args:
        ids: int64 (batch, S), padded. sources: One a report.

    Returns:
        Masked ids int64 (batch, S); weights float32 (batch, S).
    """
    masked, weights = [], []
    for row, source in zip(ids.tolist(), sources, strict=True):
        found = plan(row, vocabulary)
        masked.append(mask(row, found, vocabulary, source))
        weights.append(weigh(row, found, vocabulary))
    device = ids.device
    return torch.tensor(masked, device=device), torch.from_numpy(np.stack(weights)).to(device)
