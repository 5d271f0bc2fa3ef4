"""Pretext `ecamp-published`: the published ECAMP code's arithmetic, defects included.

Source of the facts: repository ToniChopp/ECAMP, commit d02d16d; its differences from
the paper are docs/published-flaws.md#pre-training.

Why: docs/decisions.md#the-published-arithmetic-stands-apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecamp.api.encoder import Encoder, PatchEncoder
from ecamp.api.pretext import Objective, PretextContext, PretextPlugin
from ecamp.pretext.ecamp.config import ArchitectureConfig
from ecamp.storage.files import content_hash


class PublishedECAMP(PretextPlugin[ArchitectureConfig]):
    """Masked images, masked reports and super-resolution as the published code computes them."""

    summary = "ECAMP as the published code computes it, defects included"
    licence = "Apache-2.0"
    citation = "Wang et al., ECAMP, Medical Image Analysis 105:103690, arXiv 2312.13316"
    needs = frozenset({"image", "report"})
    requires = frozenset({"visible"})

    def identity_fields(self) -> dict[str, Any]:
        """Add the content of the tokenizer file to the options."""
        path = self.config.tokenizer
        content = None if path is None else content_hash(Path(path))
        return {**super().identity_fields(), "tokenizer": content}

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        from ecamp.published.pretraining.objective import PublishedObjective

        assert isinstance(encoder, PatchEncoder)
        return PublishedObjective(encoder, self.config, context)
