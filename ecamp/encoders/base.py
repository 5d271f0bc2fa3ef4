"""The feature contract that every encoder meets and every head builds on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """What an encoder says about a batch of images.

    Attributes:
        pooled: (batch, width) one vector an image.
        tokens: (batch, rows*columns, width) one vector a patch, row by row.
        grid: (rows, columns) of `tokens`.
        pyramid: Feature maps (batch, width_i, rows_i, columns_i), fine to coarse. A ViT gives maps
            of several depths at one resolution, a CNN gives maps of falling resolution.
    """

    pooled: Tensor
    tokens: Tensor
    grid: tuple[int, int]
    pyramid: tuple[Tensor, ...]


class Encoder(nn.Module):
    """Image encoder: float images (batch, channels, size, size), normalised, -> `Features`.

    Attributes:
        image_size: Side of the input in pixels.
        channels: Input channels.
        width: Length of `pooled` and of a token.
        pretrained: Whether the weights come from somewhere, so that an objective must not draw
            them again.
    """

    pretrained: bool = False
    image_size: int
    channels: int
    width: int

    def forward(self, images: Tensor) -> Features:
        """Encode whole images."""
        raise NotImplementedError

    def layers(self) -> list[tuple[str, ...]]:
        """Prefixes of parameter names, a group a layer, input to output; for layer-wise decay."""
        return []


class PatchEncoder(Encoder):
    """An encoder that can also encode a chosen subset of its patches (capability `visible`).

    Attributes:
        patch_size: Side of a patch in pixels.
        grid: Patches per side (rows, columns).
    """

    patch_size: int
    grid: tuple[int, int]

    def encode_visible(self, images: Tensor, keep: Tensor) -> Tensor:
        """Encode only the named patches.

        Args:
            images: (batch, channels, size, size).
            keep: int64 (batch, kept) patch indices, row by row.

        Returns:
            (batch, 1 + kept, width): the class token, then the kept patches in the order of `keep`.
        """
        raise NotImplementedError


class DualEncoder(Encoder):
    """An encoder with a text side in one space with its images (capability `text`).

    Zero-shot classification and retrieval need it; both compare directions, so that lengths of
    embeddings do not matter.

    Attributes:
        logit_scale: Factor of a cosine before the softmax, as the encoder was trained.
    """

    logit_scale: float = 100.0

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences or reports; what is longer than the text side reads is cut.

        A text's embedding does not depend on the texts beside it (tested by the contract).

        Returns:
            float32 (n, joint width).
        """
        raise NotImplementedError

    def embed_image(self, features: Features) -> Tensor:
        """Bring features into the same space, from `pooled` alone (tokens are not cached).

        Returns:
            float32 (batch, joint width).
        """
        raise NotImplementedError
