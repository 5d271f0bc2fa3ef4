"""The text of a batch: reports (with distilled statements inserted), masked, with loss weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ecamp.ops.mask_tokens import DESCRIPTOR, ENTITY, mask_tokens
from ecamp.pretext.base import PretextBatch, PretextContext
from ecamp.text.distilled import DistilledInserter
from ecamp.text.policy import compile_policy
from ecamp.text.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from ecamp.pretext.ecamp.config import ECAMPConfig


@dataclass(frozen=True)
class ReportBatch:
    """A batch of reports, cut to the longest of them; all (batch, S).

    Attributes:
        ids: int64, the tokens. masked: int64, what the model sees.
        padding: bool, True = padding.
        predicted: bool, positions that count in the loss; weights: float32, how much.
        entities: bool, tokens of an entity. context: bool, tokens of an entity or a descriptor.
    """

    ids: Tensor
    masked: Tensor
    padding: Tensor
    predicted: Tensor
    weights: Tensor
    entities: Tensor
    context: Tensor


def tokenizer_for(config: ECAMPConfig, context: PretextContext) -> Tokenizer:
    """The tokenizer that the configuration names, else one learnt from the texts."""
    if config.tokenizer:
        return load_tokenizer(Path(config.tokenizer))
    distilled = context.distilled if config.distilled_text else ()
    return train_tokenizer(filter(None, (*context.reports, *distilled)), config.vocab_size)


class Reports:
    """All reports of a pre-training, encoded once; batches are put together by (seed, step, sample)."""

    def __init__(self, config: ECAMPConfig, context: PretextContext) -> None:
        self.config = config
        distilled = context.distilled if config.distilled_text else ()
        self.tokenizer = tokenizer_for(config, context)
        self.tables = compile_policy(config.masking, self.tokenizer)
        self.inserter = DistilledInserter(
            self.tokenizer,
            context.reports,
            distilled or ("",) * len(context.reports),
            config.text_length,
            config.distilled_probability,
        )

    def batch(self, batch: PretextBatch) -> ReportBatch:
        """Read and mask the reports of a step."""
        assembled = self.inserter.assemble(batch.index.numpy(), batch.step, batch.seed, cut=True)
        ids, lengths = (torch.from_numpy(value) for value in assembled)
        masked = mask_tokens(ids, lengths, batch.index, batch.step, batch.seed, self.tables)
        # One column more than the longest text: the last position is never masked.
        longest = min(int(lengths.max()) + 1, ids.shape[1])
        cut = slice(0, longest)
        padding = torch.arange(longest) >= lengths.unsqueeze(1)
        roles, predicted, weights = (
            masked.roles[:, cut],
            masked.mask[:, cut],
            masked.weights[:, cut],
        )
        if not self.config.rebalance:
            weights = predicted.float()
        if self.config.loss_on == "all":
            # Every real token but the first ([CLS]), the visible ones with weight 1.
            weights = torch.where(predicted, weights, (~padding).float())
            weights[:, 0] = 0
            predicted = weights > 0
        return ReportBatch(
            ids[:, cut], masked.ids[:, cut], padding, predicted, weights, roles == ENTITY,
            (roles == ENTITY) | (roles == DESCRIPTOR),
        )  # fmt: skip

    def entity_words(self, ids: Tensor, entities: Tensor) -> list[tuple[str, Tensor]]:
        """Entities of one report as text, each with its positions.

        Args:
            ids: int64 (S,). entities: bool (S,).
        """
        words: list[tuple[str, Tensor]] = []
        positions = entities.nonzero().flatten().tolist()
        start = 0
        for end in range(1, len(positions) + 1):
            if end == len(positions) or positions[end] != positions[end - 1] + 1:
                run = torch.tensor(positions[start:end])
                words.append((self.tokenizer.decode(ids[run].tolist()), run))
                start = end
        return words
