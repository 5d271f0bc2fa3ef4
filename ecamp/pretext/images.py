"""The image branch that masked pre-training fractions: crops, patches, masks, decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ecamp.api.encoder import PatchEncoder
from ecamp.encoders.position import sincos_table


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut into patches: (b, c, h, w) -> (b, patches row by row, patch*patch*c)."""
    b, c, h, w = images.shape
    tiles = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), -1)


def unpatchify(patches: Tensor, patch: int, channels: int) -> Tensor:
    """Undo `patchify` on a square grid."""
    b, n, _ = patches.shape
    side = int(n**0.5)
    tiles = patches.reshape(b, side, side, patch, patch, channels)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, side * patch, side * patch)


def random_keep(
    batch: int, patches: int, mask_ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw which patches stay visible.

    Returns:
        keep int64 (batch, kept) ascending; mask bool (batch, patches), True = removed.
    """
    kept = max(1, int(patches * (1 - mask_ratio)))
    noise = torch.rand(batch, patches, generator=generator)
    keep = noise.argsort(1)[:, :kept].sort(1).values
    mask = torch.ones(batch, patches, dtype=torch.bool).scatter_(1, keep, False)
    return keep, mask


def restore_patches(predicted: Tensor, plain: Tensor) -> Tensor:
    """Undo `norm_pix` with the mean and standard deviation of the true patches, (b, n, values)."""
    std = (plain.var(-1, keepdim=True) + 1e-6).sqrt()
    return predicted * std + plain.mean(-1, keepdim=True)


def masked_panels(
    plain: Tensor, predicted: Tensor, mask: Tensor, patch: int, channels: int
) -> dict[str, Tensor]:
    """Draw the visible patches and the reconstruction of the others, as images.

    Args:
        plain, predicted: Patches (b, n, values) in the units of the input.
        mask: bool (b, n), True = removed.
    """
    hidden = mask.unsqueeze(-1)
    return {
        "masked input": unpatchify(torch.where(hidden, 0.0, plain), patch, channels),
        "reconstruction": unpatchify(torch.where(hidden, predicted, plain), patch, channels),
    }


class PatchDecoder(nn.Module):
    """MAE's light decoder: visible tokens and mask tokens -> pixels of every patch."""

    def __init__(self, encoder: PatchEncoder, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        table = sincos_table(width, *encoder.grid).unsqueeze(0)
        self.position: Tensor
        self.register_buffer("position", table, persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, encoder.patch_size**2 * encoder.channels)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Decode visible tokens.

        Args:
            tokens: (b, kept, encoder width), without class token.
            keep: int64 (b, kept).

        Returns:
            (b, patches, values).
        """
        visible = self.embed(tokens)
        b, _, width = visible.shape
        full = self.mask_token.to(visible.dtype).expand(b, self.position.shape[1], -1)
        full = full.scatter(1, keep.unsqueeze(-1).expand(-1, -1, width), visible)
        result: Tensor = self.out(self.norm(self.blocks(full + self.position)))
        return result


def crop_and_flip(images: Tensor, crop: Tensor, flip: Tensor, size: int) -> Tensor:
    """Resample one crop per image, bilinear, in one pass.

    Args:
        images: float (b, c, h, w).
        crop: (b, 4) x0, y0, x1, y1 in 0..1.
        flip: bool (b,), mirror left-right.
        size: Side of the result.
    """
    x0, y0, x1, y1 = crop.unbind(1)
    width, height = x1 - x0, y1 - y0
    sign = torch.where(flip, -1.0, 1.0)
    zero = torch.zeros_like(width)
    theta = torch.stack(
        [
            torch.stack([width * sign, zero, x0 + x1 - 1], 1),
            torch.stack([zero, height, y0 + y1 - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
