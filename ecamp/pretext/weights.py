"""Existing weights: a file that `ecamp pretrain` wrote, or a published checkpoint. Trains nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ecamp.api.encoder import Encoder
from ecamp.api.plugin import PluginConfig
from ecamp.api.pretext import Objective, PretextContext, PretextPlugin
from ecamp.errors import UsageError


class WeightsFileConfig(PluginConfig):
    """The checkpoint to load."""

    path: str = Field(description="checkpoint: .pth or .safetensors")


class WeightsFile(PretextPlugin[WeightsFileConfig]):
    """Weights of `weights?path=FILE`, those that `ecamp weights inspect FILE` lists."""

    summary = "weights from a file (of ecamp pretrain; published ECAMP, MRM, MAE), trains nothing"
    licence = "Apache-2.0; weights: see their authors"
    citation = "that of the weights"
    needs = frozenset()

    def weights_file(self) -> Path:
        return Path(self.config.path).expanduser()

    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        raise UsageError("`weights` trains nothing.", "Name mae or ecamp.")
