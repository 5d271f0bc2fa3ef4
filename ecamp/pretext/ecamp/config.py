"""Every switch of the method. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ecamp.api.plugin import PluginConfig
from ecamp.text.policy import MaskingPolicy

# `masking=NAME` for the whole policy at once. MRM masks half of all words, whatever they are.
MASKINGS: dict[str, dict[str, Any]] = {
    "entity": {},
    "uniform": {"p_entity": 0.75, "p_other": 0.75, "p_plain": 0.75, "descriptor_words": 0},
    "mrm": {"p_entity": 0.5, "p_other": 0.5, "p_plain": 0.5, "descriptor_words": 0},
}


class ArchitectureConfig(PluginConfig):
    """Sizes shared by the method and by the published code; they suit small encoders on a CPU."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="fraction of patches removed")
    decoder_width: int = Field(default=96, ge=16, description="image decoder token length")
    decoder_depth: int = Field(default=2, ge=1, description="image decoder blocks")
    decoder_heads: int = Field(default=4, ge=1, description="image decoder heads")
    text_width: int = Field(default=128, ge=16, description="text token length")
    text_depth: int = Field(default=2, ge=1, description="text layers after the fusion layer")
    text_heads: int = Field(default=4, ge=1, description="text attention heads")
    text_length: int = Field(default=96, ge=8, description="tokens per report, the rest is cut")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout of the text tower")
    tokenizer: str | None = Field(
        default=None,
        description="a tokenizers JSON file; by default one is trained on the reports",
    )
    vocab_size: int = Field(default=2000, ge=64, description="upper bound of a trained vocabulary")
    distilled_text: bool = Field(
        default=True, description="insert distilled statements where the data set has them"
    )


class ECAMPConfig(ArchitectureConfig):
    """Switches of the method."""

    norm_pix: bool = Field(default=True, description="normalise the target of each patch")
    super_resolution: bool = Field(default=True, description="refine to twice the size in a window")
    sr_width: int = Field(default=16, ge=4, description="channels of the super-resolution head")
    window: Literal["attention", "file", "random"] = Field(
        default="attention", description="how the window of super-resolution is chosen"
    )
    window_size: float = Field(
        default=12 / 14, gt=0, le=1, description="side of the window / image side"
    )
    window_file: str | None = Field(
        default=None, description="CSV of boxes or .npz of maps, for window=file"
    )
    window_warmup: float = Field(
        default=0.2, ge=0, lt=1, description="initial fraction of training with random windows"
    )
    window_ema: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="decay of the averaged copy whose attention places the window",
    )
    fusion: Literal["multi-scale", "fine", "global", "none"] = Field(
        default="multi-scale",
        description="image context of the text: patch tokens, their mean, both or none",
    )
    packed: bool = Field(
        default=True, description="compute on the tokens of the reports only, not on padding"
    )
    masking: MaskingPolicy = Field(
        default_factory=MaskingPolicy,
        description="entity-aware masking; or a name: entity, uniform, mrm",
    )
    rebalance: bool = Field(
        default=True, description="re-balanced loss weights (arXiv 2312.13316, section 3.2)"
    )
    loss_on: Literal["masked", "all"] = Field(
        default="masked", description="text loss over masked tokens, or over all real ones"
    )
    distilled_probability: float = Field(
        default=0.8, ge=0, le=1, description="probability that distilled statements are inserted"
    )
    weight_mim: float = Field(default=1.0, ge=0, description="weight of the image loss")
    weight_sr: float = Field(default=1.0, ge=0, description="weight of the super-resolution loss")
    weight_mlm: float = Field(default=1.0, ge=0, description="weight of the text loss")

    @field_validator("masking", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in MASKINGS:
            raise ValueError(f"unknown masking '{value}'; known: {', '.join(MASKINGS)}")
        return MASKINGS[value]

    @model_validator(mode="after")
    def _fits(self) -> ECAMPConfig:
        if not self.super_resolution:
            return self
        if self.window == "attention" and self.fusion in ("global", "none"):
            raise ValueError(
                f"window=attention needs cross-attention, which fusion={self.fusion} does not have; "
                "use window=random"
            )
        if (self.window == "file") != (self.window_file is not None):
            raise ValueError("window=file and window_file=PATH go together")
        return self
