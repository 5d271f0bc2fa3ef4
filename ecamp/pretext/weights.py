"""Weights that are there already: a published checkpoint, or a file of ours. Trains nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ecamp.encoders.base import Encoder
from ecamp.errors import UsageError
from ecamp.plugin.protocols import PluginConfig, PretextPlugin
from ecamp.pretext.base import Objective, PretextContext


class WeightsFile(PretextPlugin):
    """`weights?path=FILE`: what `ecamp weights inspect FILE` says is taken; needs a ViT."""

    summary = "weights from a file (published ECAMP, MRM, MAE; timm names), trains nothing"
    licence = "Apache-2.0; weights as their authors say"
    citation = "that of the weights"
    needs = frozenset()
    requires = frozenset({"visible"})

    class Config(PluginConfig):
        """Which file."""

        path: str = Field(description="checkpoint: .pth or .safetensors")

    def weights_file(self) -> Path:
        return Path(self.config.path).expanduser()

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        raise UsageError("`weights` trains nothing.", "Name mae or ecamp.")
