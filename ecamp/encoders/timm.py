"""Encoders from timm: any ViT with a class token (also patch-wise) and any feature-extracting CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ecamp.api.encoder import Encoder, EncoderPlugin, Features, PatchEncoder
from ecamp.api.plugin import PluginConfig
from ecamp.encoders.position import sincos_table
from ecamp.errors import UsageError
from ecamp.ops.patch_select import patch_select


class ViTEncoder(PatchEncoder):
    """A timm `VisionTransformer`; `pooled` is the mean of the normalised patch tokens.

    The mean, not the class token, because masked image modelling gives the class token no loss of
    its own, and the published fine-tuning pools the same way (arXiv 2312.13316, 4.3).
    """

    def __init__(self, vit: Any, channels: int, pretrained: bool = False) -> None:
        super().__init__()
        if vit.cls_token is None or vit.pos_embed is None or vit.num_prefix_tokens != 1:
            raise UsageError(
                "This ViT has no class token or no learnt position table.",
                "Pick a plain vit_* or deit_* model.",
            )
        self.vit = vit
        self.channels = channels
        self.width = int(vit.embed_dim)
        size, patch = vit.patch_embed.img_size, vit.patch_embed.patch_size
        self.image_size, self.patch_size = int(size[0]), int(patch[0])
        rows, columns = vit.patch_embed.grid_size
        self.grid = (int(rows), int(columns))
        depth = len(vit.blocks)
        self.levels = sorted({max(depth // 2 - 1, 0), depth - 1})
        self.pretrained = pretrained
        if pretrained:  # its position table was learnt with the rest
            return
        with torch.no_grad():
            vit.pos_embed[0, 1:] = sincos_table(self.width, *self.grid)
            vit.pos_embed[0, 0] = 0.0

    def forward(self, images: Tensor) -> Features:
        maps = self.vit.forward_intermediates(
            images, indices=self.levels, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        tokens = maps[-1].flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, self.grid, tuple(maps))

    def layers(self) -> list[tuple[str, ...]]:
        first = ("vit.patch_embed.", "vit.cls_token", "vit.pos_embed")
        return [first, *((f"vit.blocks.{i}.",) for i in range(len(self.vit.blocks)))]

    def encode_visible(self, images: Tensor, keep: Tensor) -> Tensor:
        visible = self._embed(images, keep) + self.vit.pos_embed[0, 1:][keep]
        cls = (self.vit.cls_token + self.vit.pos_embed[:, :1]).expand(len(visible), -1, -1)
        tokens = self.vit.norm_pre(torch.cat([cls, visible], dim=1))
        result: Tensor = self.vit.norm(self.vit.blocks(tokens))
        return result

    def _embed(self, images: Tensor, keep: Tensor) -> Tensor:
        """Embed the kept patches only: pixels are picked before the product, not after it."""
        proj, norm = self.vit.patch_embed.proj, self.vit.patch_embed.norm
        pixels = patch_select(images, keep, self.patch_size)
        embedded: Tensor = norm(F.linear(pixels, proj.weight.flatten(1), proj.bias))
        return embedded


class CNNEncoder(Encoder):
    """A timm model in `features_only` form; `pooled` is the mean of its coarsest map.

    The pyramid starts at a quarter of the image side, as in FPN (Lin et al., CVPR 2017): a map at
    half of it holds edges, and is three quarters of a ResNet's features in memory.
    """

    def __init__(self, body: Any, image_size: int, channels: int) -> None:
        super().__init__()
        self.body = body
        self.image_size, self.channels = image_size, channels
        self.width = int(body.feature_info.channels()[-1])
        fine = [reduction for reduction in body.feature_info.reduction() if reduction < 4]
        self.first = min(len(fine), len(body.feature_info.reduction()) - 1)

    def forward(self, images: Tensor) -> Features:
        maps = tuple(self.body(images))[self.first :]
        coarse = maps[-1]
        tokens = coarse.flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, (coarse.shape[2], coarse.shape[3]), maps)

    def layers(self) -> list[tuple[str, ...]]:
        """Its parts in order (a ResNet: stem, four stages); a bare norm belongs to the part before."""
        groups: list[tuple[str, ...]] = []
        for name, part in self.body.named_children():
            shapes = [parameter.ndim for parameter in part.parameters()]
            if shapes and max(shapes) < 2 and groups:
                groups[-1] += (f"body.{name}.",)
            elif shapes:
                groups.append((f"body.{name}.",))
        return groups


class TimmEncoderConfig(PluginConfig):
    """`options` are passed to `timm.create_model` (patch_size, depth, embed_dim ...)."""

    image_size: int = Field(default=224, ge=16, description="side of the input in pixels")
    pretrained: bool = Field(default=False, description="load timm's weights (needs a network)")
    options: dict[str, Any] = Field(default_factory=dict, description="for timm.create_model")


class TimmEncoder(EncoderPlugin[TimmEncoderConfig]):
    """Any timm model by name, at any image size."""

    summary = "any timm ViT or CNN by name, at any image size"
    licence = "Apache-2.0 (timm); weights as their authors say"
    citation = "Wightman, PyTorch Image Models, 2019, doi 10.5281/zenodo.4414861"
    family = True

    @classmethod
    def variants(cls) -> Sequence[str]:
        return timm.list_models()

    @property
    def image_size(self) -> int:
        return int(self.config.image_size)

    @property
    def is_vit(self) -> bool:
        """Whether the variant is a plain ViT (by name, so that planning builds nothing)."""
        return str(self.variant).startswith(("vit_", "deit_"))

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"visible"}) if self.is_vit else frozenset()

    def build(self, channels: int) -> Encoder:
        common = {"in_chans": channels, "pretrained": self.config.pretrained, **self.config.options}
        try:
            if self.is_vit:
                vit = timm.create_model(
                    str(self.variant), img_size=self.image_size, num_classes=0, **common
                )
                return ViTEncoder(vit, channels, self.config.pretrained)
            body = timm.create_model(str(self.variant), features_only=True, **common)
        except (TypeError, RuntimeError, ValueError) as error:
            raise UsageError(f"timm/{self.variant} cannot be built: {error}") from error
        return CNNEncoder(body, self.image_size, channels)


class MicroViTConfig(PluginConfig):
    """Sizes of the transformer."""

    image_size: int = Field(default=64, ge=16, description="side of the input in pixels")
    patch_size: int = Field(default=8, ge=2, description="side of a patch in pixels")
    width: int = Field(default=128, ge=16, description="length of a token")
    depth: int = Field(default=4, ge=1, description="transformer blocks")
    heads: int = Field(default=4, ge=1, description="attention heads")


class MicroViT(EncoderPlugin[MicroViTConfig]):
    """A ViT small enough to be pre-trained on two CPU cores within minutes."""

    summary = "small ViT (64 px, patch 8, width 128, 4 layers) for CPUs and tests"
    licence = "Apache-2.0"
    citation = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021"

    @property
    def image_size(self) -> int:
        return int(self.config.image_size)

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"visible"})

    def build(self, channels: int) -> Encoder:
        config = self.config
        if config.image_size % config.patch_size:
            raise UsageError(
                f"vit-micro: image_size {config.image_size} is not a multiple of patch_size "
                f"{config.patch_size}.",
                "Choose a size the patches tile exactly.",
            )
        vit = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            in_chans=channels,
            num_classes=0,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
        )
        return ViTEncoder(vit, channels)
