"""ECAMP: entity-centred, context-aware pre-training on images and reports (arXiv 2312.13316)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecamp.api.encoder import Encoder, PatchEncoder
from ecamp.api.pretext import Objective, PretextContext, PretextPlugin
from ecamp.pretext.ecamp.config import ECAMPConfig
from ecamp.storage.files import content_hash
from ecamp.text.lexicon import Lexicon


class ECAMP(PretextPlugin[ECAMPConfig]):
    """Pre-training on images and reports."""

    summary = "ECAMP: masked images, entity-aware masked reports, fusion, super-resolution"
    licence = "Apache-2.0"
    citation = "Wang et al., ECAMP, Medical Image Analysis 105:103690, arXiv 2312.13316"
    needs = frozenset({"image", "report"})
    requires = frozenset({"visible"})

    def identity_fields(self) -> dict[str, Any]:
        """Add the content of the lexicon and of every file that an option names."""
        fields = {
            **super().identity_fields(),
            "lexicon": Lexicon.load(self.config.masking.lexicon).digest(),
        }
        for name in ("window_file", "tokenizer"):
            path = getattr(self.config, name)
            fields[name] = None if path is None else content_hash(Path(path))
        return fields

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        assert isinstance(encoder, PatchEncoder)
        from ecamp.pretext.ecamp.objective import ECAMPObjective

        return ECAMPObjective(encoder, self.config, context)
