"""The baseline: random weights, no pre-training."""

from __future__ import annotations

from ecamp.encoders.base import Encoder
from ecamp.plugin.protocols import PretextPlugin
from ecamp.pretext.base import Objective, PretextContext


class NoPretext(PretextPlugin):
    """Leaves the encoder as it was drawn; its seed is the cell's seed."""

    summary = "no pre-training: random weights, one draw a seed"
    licence = "Apache-2.0"
    citation = "the baseline"
    needs = frozenset()

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        raise NotImplementedError("`none` trains nothing")
