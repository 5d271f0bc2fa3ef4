"""Common parts of the published downstream models: their ViT, and its start from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ecamp.errors import DataError


@dataclass(frozen=True)
class ViTShape:
    """Geometry of a ViT; the default is ViT-B/16 at 224 pixels, which every published run uses."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12


def build_vit(shape: ViTShape) -> VisionTransformer:
    """Build a ViT without final norm and head: the published dense models drop the pre-trained norm."""
    return VisionTransformer(
        img_size=shape.image_size,
        patch_size=shape.patch_size,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        num_classes=0,
        global_pool="",
        final_norm=False,
        fc_norm=False,
    )


def patch_map(vit: VisionTransformer, project: nn.Linear, images: Tensor) -> Tensor:
    """Return projected patch tokens as a map (batch, width, rows, columns); the class token is left out."""
    rows, columns = vit.patch_embed.grid_size
    tokens = project(vit.forward_features(images)[:, 1:])
    result: Tensor = tokens.transpose(1, 2).unflatten(2, (rows, columns))
    return result


def published_names(model: nn.Module) -> dict[str, str]:
    """Map our name of each tensor to the published one, by the model's `PUBLISHED` substitutions."""
    names = {}
    for name in model.state_dict():
        published = name
        for pattern, replacement in getattr(model, "PUBLISHED", ()):
            published = re.sub(pattern, replacement, published)
        names[name] = published
    return names


@dataclass(frozen=True)
class Start:
    """Result of loading a pre-training checkpoint; published names.

    Attributes:
        loaded: Tensors loaded.
        missing: Tensors of the model that keep their random start.
        unexpected: Given tensors that the model does not have.
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]


def start_dense(model: nn.Module, checkpoint: Mapping[str, Tensor]) -> Start:
    """Load the tensors of a dense model's `encoder` from a checkpoint's `model`, and freeze them.

    The paper calls this fine-tuning (docs/published-flaws.md#f11). Final norm, decoder and text
    tower of the checkpoint are not used.

    Raises:
        DataError: When a tensor has another shape; names both.
    """
    encoder = model.get_submodule("encoder")
    tensors = {
        f"encoder.{name}": checkpoint[name] for name in encoder.state_dict() if name in checkpoint
    }
    result = load_named(model, tensors)
    encoder.requires_grad_(False)
    return result


def load_named(model: nn.Module, tensors: Mapping[str, Tensor]) -> Start:
    """Load tensors by our names; report loaded, missing and unexpected ones by published names."""
    state, names = model.state_dict(), published_names(model)
    for name, tensor in tensors.items():
        if name in state and state[name].shape != tensor.shape:
            raise DataError(
                f"{name}: checkpoint {tuple(tensor.shape)}, model {tuple(state[name].shape)}.",
                "Build the model with the geometry of the checkpoint.",
            )
    result = model.load_state_dict(dict(tensors), strict=False)
    return Start(
        [names[name] for name in state if name in tensors],
        [names[name] for name in result.missing_keys],
        list(result.unexpected_keys),
    )
