"""Interface of detection heads, which are options of one recipe."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ecamp.api.encoder import Features

Truth = tuple[Tensor, Tensor]
"""Boxes float32 (k, 4) x1, y1, x2, y2 in pixels, and classes int64 (k,), of one image."""


class BoxHead(nn.Module):
    """Head of detection: features to outputs, outputs and truth to loss, outputs to scored boxes.

    Attributes:
        image_size: Side of the encoder's input in pixels.
        classes: Number of classes.
        lr: Default peak learning rate.
    """

    image_size: int
    classes: int
    lr: float

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Compute the raw outputs of a batch."""
        raise NotImplementedError

    def loss(self, outputs: tuple[Tensor, ...], truth: Sequence[Truth]) -> Tensor:
        """Compute the scalar loss; images without boxes count."""
        raise NotImplementedError

    def boxes(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return all candidates, before suppression.

        Returns:
            (batch, candidates, 4) corners in pixels, (batch, candidates, classes) scores in 0..1.
        """
        raise NotImplementedError
