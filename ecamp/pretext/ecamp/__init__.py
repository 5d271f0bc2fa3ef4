"""ECAMP: entity-centred, context-aware pre-training on images and reports (arXiv 2312.13316)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ecamp.data.store import content_hash
from ecamp.encoders.base import Encoder, PatchEncoder
from ecamp.plugin.protocols import PretextPlugin
from ecamp.pretext.base import Objective, PretextContext
from ecamp.pretext.ecamp.config import ECAMPConfig
from ecamp.text.lexicon import load_lexicon


class ECAMP(PretextPlugin):
    """Images and reports."""

    summary = "ECAMP: masked images, entity-aware masked reports, fusion, super-resolution"
    licence = "Apache-2.0"
    citation = "Wang et al., ECAMP, Medical Image Analysis 105:103690, arXiv 2312.13316"
    needs = frozenset({"image", "report"})
    requires = frozenset({"visible"})
    Config: ClassVar[type[ECAMPConfig]] = ECAMPConfig

    def decisive(self) -> dict[str, Any]:
        """With the content of the lexicon and of every file that an option names."""
        config: ECAMPConfig = self.config
        out = {**super().decisive(), "lexicon": load_lexicon(config.masking.lexicon).digest()}
        for name in ("window_file", "tokenizer"):
            path = getattr(config, name)
            out[name] = None if path is None else content_hash(Path(path))
        return out

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        assert isinstance(encoder, PatchEncoder)
        if self.config.fidelity == "released":
            from ecamp.pretext.ecamp.released.objective import ReleasedObjective

            return ReleasedObjective(encoder, self.config, context)
        from ecamp.pretext.ecamp.objective import ECAMPObjective

        return ECAMPObjective(encoder, self.config, context)
