"""The published segmentation: losses, Dice metric, and the decoder on a frozen ViT (paper 4.3).

Kept here: the metric counts empty against empty as 1 and averages over images
(docs/published-flaws.md#f4); "fine-tuning" trains the head only (#f11).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecamp.published.downstream.vit import ViTShape, build_vit, patch_map


def dice_coefficient(logits: Tensor, target: Tensor) -> Tensor:
    """Compute soft Dice over the whole batch, smoothed by 1 (the published `dice_loss` returns this).

    One coefficient for all images together: an image with a large finding outweighs the others.

    Args:
        logits, target: (batch, height, width); targets may be soft.
    """
    smooth = 1.0
    probability, truth = torch.sigmoid(logits).flatten(), target.flatten()
    overlap = (probability * truth).sum()
    return (2 * overlap + smooth) / (probability.sum() + truth.sum() + smooth)


def dice_loss(probability: Tensor, target: Tensor, smooth: float = 1.0, power: int = 2) -> Tensor:
    """Compute the image-wise Dice loss with squared sizes in the denominator (the published `DiceLoss`).

    The overlap is not doubled, so that a perfect prediction does not reach 0 but about 0.5
    (docs/published-flaws.md#f26).

    Args:
        probability, target: (batch, ...).
    """
    probability, target = probability.flatten(1), target.flatten(1)
    overlap = (probability * target).sum(1) + smooth
    sizes = (probability.pow(power) + target.pow(power)).sum(1) + smooth
    return (1 - overlap / sizes).mean()


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Compute the focal loss (Lin et al., ICCV 2017) without class weights, mean over all pixels.

    Written so that soft targets (masks shrunk with area interpolation) follow the published form:
    the modulating factor uses the logit times (2*target - 1), which is exact at 0 and 1 only.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    log_wrong = F.logsigmoid(-logits * (2 * target - 1))
    return ((gamma * log_wrong).exp() * cross_entropy).mean()


def mixed_loss(logits: Tensor, target: Tensor, alpha: float = 10.0, gamma: float = 2.0) -> Tensor:
    """Compute the published training loss: alpha * focal - log(Dice over the batch)."""
    return alpha * focal_loss(logits, target, gamma) - dice_coefficient(logits, target).log()


def get_dice(probability: Tensor, truth: Tensor, threshold: float = 0.5) -> Tensor:
    """Compute the published Dice metric of one batch (docs/published-flaws.md#f4).

    Returns:
        (batch, 1): images that hold the finding first, then the others, which score 1 when
        nothing is predicted and 0 otherwise. An all-empty prediction scores the fraction of negatives.
    """
    predicted = (probability.flatten(1) > threshold).to(probability.dtype)
    true = (truth.flatten(1) > 0.5).to(probability.dtype)
    positive = true.sum(1) > 0
    dice = 2 * (predicted * true).sum(1) / (predicted + true).sum(1)
    empty = (predicted.sum(1) == 0).to(probability.dtype)
    return torch.cat([dice[positive], empty[~positive]]).unsqueeze(1)


class Decoder(nn.Module):
    """Four times convolution, batch norm, ReLU, doubling; then one convolution to the logits."""

    def __init__(self, width: int, outputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (width, *channels[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1),
                nn.BatchNorm2d(o),
                nn.ReLU(inplace=True),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            )
            for i, o in zip(inputs, channels, strict=True)
        )
        self.out = nn.Conv2d(channels[-1], outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Decode (batch, width, rows, columns) to logits (batch, outputs, 16*rows, 16*columns)."""
        for stage in self.stages:
            features = stage(features)
        result: Tensor = self.out(features)
        return result


class SegViT(nn.Module):
    """ViT without its final norm, a linear layer on patch tokens, and one decoder per output.

    Args:
        shape: Geometry of the encoder; ViT-B/16 at 224 is the published one.
        decoders: Names of the decoders: one for chest masks, disc and cup for RIGA.
    """

    PUBLISHED = (
        (r"^project\.", "encoder.seg_head."),
        (r"^decoders\.all\.", "decoder."),
        (r"^decoders\.(disc|cup)\.", r"decoder_\1."),
        *((rf"\.stages\.{k}\.", f".decoder_{k + 1}.") for k in range(4)),
        (r"\.out\.", ".final_out."),
    )
    """(pattern, replacement) that turn our parameter names into the published ones, in order."""

    def __init__(
        self,
        shape: ViTShape | None = None,
        *,
        decoders: tuple[str, ...] = ("all",),
        outputs: int = 1,
        channels: tuple[int, ...] = (512, 256, 128, 64),
    ) -> None:
        super().__init__()
        shape = shape or ViTShape()
        self.encoder = build_vit(shape)
        self.project = nn.Linear(shape.width, shape.width)
        self.decoders = nn.ModuleDict(
            {name: Decoder(shape.width, outputs, channels) for name in decoders}
        )

    def encode(self, images: Tensor) -> Tensor:
        """Encode images (batch, 3, size, size) to the decoders' input, (batch, width, rows, columns)."""
        return patch_map(self.encoder, self.project, images)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits (batch, outputs, size, size) of each decoder, in their order."""
        features = self.encode(images)
        return tuple(decoder(features) for decoder in self.decoders.values())


def seg_vit_riga(shape: ViTShape | None = None) -> SegViT:
    """Build the RIGA variant: one decoder for the optic disc, one for the cup."""
    return SegViT(shape, decoders=("disc", "cup"))
