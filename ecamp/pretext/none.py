"""The baseline: random weights, no pre-training."""

from __future__ import annotations

from ecamp.api.encoder import Encoder
from ecamp.api.pretext import Objective, PretextContext, PretextPlugin


class NoPretext(PretextPlugin):
    """Leaves the encoder as it was drawn; its seed is the cell's seed."""

    summary = "no pre-training: random weights, one draw a seed"
    trains = False
    licence = "Apache-2.0"
    citation = "the baseline"
    needs = frozenset()

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        raise NotImplementedError("`none` trains nothing")
