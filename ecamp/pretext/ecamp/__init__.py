"""ECAMP: entity-centred, context-aware pre-training on images and reports (arXiv 2312.13316)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ecamp.encoders.base import Encoder, PatchEncoder
from ecamp.plugin.protocols import PluginConfig, PretextPlugin
from ecamp.pretext.base import Objective, PretextContext
from ecamp.text.lexicon import load_lexicon
from ecamp.text.policy import MaskingPolicy


class ECAMPConfig(PluginConfig):
    """Switches of the method; the defaults suit small encoders on a CPU."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="share of patches removed")
    norm_pix: bool = Field(default=True, description="normalise the target of each patch")
    decoder_width: int = Field(default=96, ge=16, description="image decoder token length")
    decoder_depth: int = Field(default=2, ge=1, description="image decoder blocks")
    decoder_heads: int = Field(default=4, ge=1, description="image decoder heads")
    super_resolution: bool = Field(default=True, description="refine to twice the size in a window")
    sr_width: int = Field(default=16, ge=4, description="channels of the super-resolution head")
    window: float = Field(default=0.5, gt=0, le=1, description="side of the window / image side")
    text_width: int = Field(default=128, ge=16, description="text token length")
    text_depth: int = Field(default=2, ge=1, description="text layers after the fusion layer")
    text_heads: int = Field(default=4, ge=1, description="text attention heads")
    text_length: int = Field(default=96, ge=8, description="tokens of a report, the rest is cut")
    vocab_size: int = Field(default=2000, ge=64, description="upper bound of the vocabulary")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout of the text tower")
    rebalance: bool = Field(default=True, description="re-balanced loss weights (METHOD section 2)")
    masking: MaskingPolicy = Field(
        default_factory=MaskingPolicy, description="entity-aware masking"
    )
    weight_mim: float = Field(default=1.0, ge=0, description="weight of the image loss")
    weight_sr: float = Field(default=1.0, ge=0, description="weight of the super-resolution loss")
    weight_mlm: float = Field(default=1.0, ge=0, description="weight of the text loss")


class ECAMP(PretextPlugin):
    """Images and reports."""

    summary = "ECAMP: masked images, entity-aware masked reports, fusion, super-resolution"
    licence = "Apache-2.0"
    citation = "Wang et al., ECAMP, Medical Image Analysis 105:103690, arXiv 2312.13316"
    needs = frozenset({"image", "report"})
    requires = frozenset({"visible"})
    Config = ECAMPConfig

    def decisive(self) -> dict[str, Any]:
        """With the lexicon's content: the same name can stand for other forms, which mask other words."""
        lexicon = load_lexicon(self.config.masking.lexicon)
        return {**super().decisive(), "lexicon": lexicon.digest()}

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        from ecamp.pretext.ecamp.objective import ECAMPObjective

        assert isinstance(encoder, PatchEncoder)
        return ECAMPObjective(encoder, self.config, context)
