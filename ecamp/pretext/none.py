"""The baseline: random weights, no pre-training."""

from __future__ import annotations

from ecamp.api.encoder import Encoder
from ecamp.api.pretext import Objective, PretextContext, PretextPlugin


class NoPretext(PretextPlugin):
    """No pre-training: the encoder keeps its random weights, drawn from the cell's seed."""

    summary = "no pre-training: random weights, one draw per seed"
    trains = False
    licence = "Apache-2.0"
    citation = "the baseline"
    needs = frozenset()

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        raise NotImplementedError("`none` trains nothing")
