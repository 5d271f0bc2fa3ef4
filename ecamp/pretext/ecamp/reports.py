"""The text of a batch: reports (with distilled statements inserted), masked, with loss weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ecamp.api.pretext import PretextBatch, PretextContext
from ecamp.ops.mask_tokens import mask_tokens
from ecamp.text.insertion import DistilledInserter
from ecamp.text.policy import compile_policy
from ecamp.text.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from ecamp.pretext.ecamp.config import ArchitectureConfig, ECAMPConfig


@dataclass(frozen=True)
class ReportBatch:
    """A batch of reports, packed: the tokens of its reports one after another, without padding; (T,).

    Attributes:
        ids: int64, the tokens. masked: int64, input of the model.
        predicted: bool, positions that count in the loss; weights: float32, how much.
        roles: uint8, roles of `ecamp.ops.mask_tokens`.
        lengths: int64 (batch,).
    """

    ids: Tensor
    masked: Tensor
    predicted: Tensor
    weights: Tensor
    roles: Tensor
    lengths: Tensor

    @property
    def padding(self) -> Tensor:
        """bool (batch, S), True = padding; S is the longest report's length."""
        return torch.arange(int(self.lengths.max())) >= self.lengths.unsqueeze(1)

    def pad(self, values: Tensor) -> Tensor:
        """Pad a packed field (T,) to (batch, S), zero where padded."""
        real = ~self.padding
        return values.new_zeros(real.shape).masked_scatter_(real, values)


def tokenizer_for(config: ArchitectureConfig, context: PretextContext) -> Tokenizer:
    """Load the tokenizer that the configuration names, or train one on the texts."""
    if config.tokenizer:
        return load_tokenizer(Path(config.tokenizer))
    distilled = context.distilled if config.distilled_text else ()
    return train_tokenizer(filter(None, (*context.reports, *distilled)), config.vocab_size)


class Reports:
    """All reports of a pre-training, encoded once; batches are a function of (seed, step, sample)."""

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
        ids, lengths = self.inserter.assemble(batch.index, batch.step, batch.seed)
        window = self.config.text_length
        masked = mask_tokens(ids, lengths, batch.index, batch.step, batch.seed, self.tables, window)
        predicted, weights = masked.mask, masked.weights
        if not self.config.rebalance:
            weights = predicted.float()
        if self.config.loss_on == "all":
            # Every token but each report's first ([CLS]), the visible ones with weight 1.
            weights = torch.where(predicted, weights, 1.0)
            weights[lengths.cumsum(0) - lengths] = 0
            predicted = weights > 0
        return ReportBatch(ids, masked.ids, predicted, weights, masked.roles, lengths)

    def entity_words(self, ids: Tensor, entities: Tensor) -> list[tuple[str, Tensor]]:
        """List the entities of one report as text, each with its positions.

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
