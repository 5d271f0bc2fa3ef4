"""The published detector: frozen ViT, three feature maps, YOLOv3 head (after MGCA; paper 4.3).

The ViT is frozen under the name of fine-tuning (docs/published-flaws.md#f11). Loss and suppression:
`yolo.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecamp.published.downstream.vit import ViTShape, build_vit, patch_map

MAPS = (512, 1024, 2048)  # channels of the maps, fine to coarse
# Label fraction in percent -> expansion of the bottlenecks: the fractions compare different models
# (docs/published-flaws.md#f25).
EXPANSION = {1: 8, 10: 8, 100: 4}


class Bottleneck(nn.Module):
    """ResNet's bottleneck (He et al., CVPR 2016) without change of size or width."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner = width // expansion
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.bn1(self.conv1(features)).relu()
        inner = self.bn2(self.conv2(inner)).relu()
        result: Tensor = (self.bn3(self.conv3(inner)) + features).relu()
        return result


class FeatureMaps(nn.Module):
    """Three maps from the single map of a ViT: unchanged, enlarged, and every second cell."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        fine, middle, coarse = MAPS
        self.middle_in = nn.Conv2d(width, middle, 1)
        self.middle = Bottleneck(middle, expansion)
        self.fine_in = nn.Conv2d(width, fine, 1)
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.fine = Bottleneck(fine, expansion)
        # Stride 2 with a 1x1 kernel: three of four cells are ignored.
        self.coarse_in = nn.Conv2d(width, coarse, 1, stride=2, bias=False)
        self.coarse = Bottleneck(coarse, expansion)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make the maps: (batch, width, r, c) -> maps of 2r, r and r/2 rows, fine to coarse."""
        return (
            self.fine(self.enlarge(self.fine_in(features))),
            self.middle(self.middle_in(features)),
            self.coarse(self.coarse_in(features)),
        )


def conv_block(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Build a block of convolution, batch norm and leaky ReLU."""
    block = nn.Sequential()
    block.add_module("conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))
    block.add_module("bn", nn.BatchNorm2d(outputs))
    block.add_module("relu", nn.LeakyReLU(0.1))
    return block


class Branch(nn.Module):
    """Six alternating 1x1 and 3x3 blocks, then the logits; the fifth also feeds the next scale."""

    def __init__(self, inputs: int, narrow: int, outputs: int) -> None:
        super().__init__()
        wide = 2 * narrow
        widths = [
            (inputs, narrow, 1),
            (narrow, wide, 3),
            *[(wide, narrow, 1), (narrow, wide, 3)] * 2,
        ]
        self.blocks = nn.ModuleList(conv_block(*width) for width in widths)
        self.out = nn.Conv2d(wide, outputs, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of this scale, and the features for the next finer one."""
        for block in self.blocks[:-1]:
            features = block(features)
        return self.out(self.blocks[-1](features)), features


class YOLOHead(nn.Module):
    """Three branches, coarse to fine; each gets its map and the enlarged features of the one before."""

    def __init__(self, anchors: int, classes: int) -> None:
        super().__init__()
        outputs = anchors * (5 + classes)
        fine, middle, coarse = MAPS
        self.branch0 = Branch(coarse, 512, outputs)
        self.pass1 = conv_block(512, 256, 1)
        self.branch1 = Branch(middle + 256, 256, outputs)
        self.pass2 = conv_block(256, 128, 1)
        self.branch2 = Branch(fine + 128, 128, outputs)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Map features (fine to coarse) to logits (batch, outputs, rows, columns), coarse to fine."""
        fine, middle, coarse = maps
        logits0, features = self.branch0(coarse)
        features = torch.cat([self.enlarge(self.pass1(features)), middle], 1)
        logits1, features = self.branch1(features)
        features = torch.cat([self.enlarge(self.pass2(features)), fine], 1)
        return logits0, logits1, self.branch2(features)[0]


class Detector(nn.Module):
    """ViT without its final norm, a linear layer on patch tokens, three maps, YOLOv3 head.

    Args:
        expansion: Expansion of the bottlenecks; the published values are in `EXPANSION`.
    """

    PUBLISHED = (
        (r"^encoder\.", "backbone.encoder."),
        (r"^project\.", "backbone.encoder.det_head."),
        (r"^maps\.middle_in\.", "backbone.layers.traspose."),
        (r"^maps\.fine_in\.", "backbone.layers.transpose1."),
        (r"^maps\.coarse_in\.", "backbone.layers.downsample."),
        (r"^maps\.middle\.", "backbone.layers.layer1."),
        (r"^maps\.fine\.", "backbone.layers.layer2."),
        (r"^maps\.coarse\.", "backbone.layers.layer3."),
        (r"^head\.branch(\d)\.blocks\.", r"embedding\1."),
        (r"^head\.branch(\d)\.out\.", r"embedding\1.conv_out."),
        (r"^head\.pass(\d)\.", r"embedding\1_cbl."),
    )
    """(pattern, replacement) that turn our parameter names into the published ones, in order."""

    def __init__(
        self,
        shape: ViTShape | None = None,
        *,
        expansion: int = 4,
        anchors: int = 3,
        classes: int = 1,
    ) -> None:
        super().__init__()
        shape = shape or ViTShape()
        self.encoder = build_vit(shape)
        self.project = nn.Linear(shape.width, shape.width)
        self.maps = FeatureMaps(shape.width, expansion)
        self.head = YOLOHead(anchors, classes)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the head's input of images (batch, 3, size, size), fine to coarse."""
        maps: tuple[Tensor, Tensor, Tensor] = self.maps(
            patch_map(self.encoder, self.project, images)
        )
        return maps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the three scales, coarse to fine."""
        logits: tuple[Tensor, Tensor, Tensor] = self.head(self.feature_maps(images))
        return logits
