"""One small call of every public op, for tests that run over all of them: fakes, GPU, graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ecamp.ops.attention import AttentionLayout, attention, pack_layout
from ecamp.ops.crop_resize import crop_resize
from ecamp.ops.dropout_rows import dropout_rows
from ecamp.ops.insert_text import TextPool, insert_text
from ecamp.ops.linear_weighted_ce import linear_weighted_ce
from ecamp.ops.mask_tokens import MaskTables, mask_tokens
from ecamp.ops.masked_mse import masked_mse
from ecamp.ops.patch_select import patch_select
from ecamp.ops.residual_norm import residual_norm
from ecamp.ops.rows import gather_rows, scatter_rows
from ecamp.ops.select_rows import select_rows
from ecamp.ops.window_mse import window_mse
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.tokenizer import train_tokenizer

LENGTHS, WIDTH, HEADS = (5, 1, 40), 32, 2
ROWS = sum(LENGTHS)


@dataclass(frozen=True)
class Sample:
    """A call and its arguments.

    Attributes:
        ops: Names under `torch.ops.ecamp` that the call and its backward reach.
        inputs: float32 tensors that gradients are taken of; cast to the type under test.
        others: Everything else that is a tensor, as it is.
        call: Takes inputs and others, by name.
    """

    ops: tuple[str, ...]
    inputs: dict[str, Tensor]
    others: dict[str, Tensor]
    call: Callable[..., Tensor]


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def _text() -> tuple[MaskTables, Tensor]:
    words = "there is no pleural effusion . mild left opacity at the base ."
    tokenizer: Tokenizer = train_tokenizer([words], 200)
    ids = tokenizer.encode(words, add_special_tokens=False).ids
    row = [tokenizer.token_to_id("[CLS]"), *ids]
    return compile_policy(MaskingPolicy(), tokenizer), torch.tensor([row, row[::-1], row])


def samples() -> dict[str, Sample]:
    """By name of the public function."""
    lengths, numbers = torch.tensor(LENGTHS), torch.tensor([7, 3, 11])
    owner = torch.repeat_interleave(torch.arange(3), lengths)
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    rows = {"samples": numbers[owner], "positions": positions}
    layout = pack_layout(lengths, numbers, max(LENGTHS))
    tensors = {k: v for k, v in vars(layout).items() if isinstance(v, Tensor)}
    counts = {k: v for k, v in vars(layout).items() if not isinstance(v, Tensor)}
    tables, ids = _text()
    table = {k: v for k, v in vars(tables).items() if isinstance(v, Tensor)}
    rest = {k: v for k, v in vars(tables).items() if not isinstance(v, Tensor)}
    lengths_of_ids = torch.tensor([ids.shape[1], ids.shape[1], ids.shape[1] - 2])
    n = torch.tensor
    pool = TextPool(
        torch.arange(10, 19, dtype=torch.int32), n([0, 4]), n([4, 3]), n([7, 9]), n([2, 0]),
        n([0, 4, 0, 1, 3]), n([0, 2]), n([2, 3]),
    )  # fmt: skip
    images = _noise(2, 3, 32, 32)
    keep = torch.tensor([[0, 3, 9], [15, 2, 4]])
    hidden = torch.arange(16).expand(2, 16) % 3 != 0
    mixed = torch.tensor([4, -1, 0, ROWS - 1])

    def attend(query: Tensor, key: Tensor, value: Tensor, **segments: Tensor) -> Tensor:
        return attention(
            query, key, value, AttentionLayout(**segments, **counts), dropout=0.25, seed=1, step=2
        )

    def mask(
        ids: Tensor, lengths: Tensor, numbers: Tensor, window: int | None = None, **kept: Tensor
    ) -> Tensor:
        out = mask_tokens(ids, lengths, numbers, 3, 4, MaskTables(**kept, **rest), window)
        return torch.stack([out.ids.double(), out.weights.double(), out.roles.double()])

    def norm(
        x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, bias: Tensor, owner: Tensor,
        samples: Tensor, positions: Tensor,
    ) -> Tensor:  # fmt: skip
        return residual_norm(
            x, residual, gamma, beta, eps=1e-6, row_bias=bias, row_batch=owner, dropout=0.25,
            seed=1, step=2, samples=samples, positions=positions,
        )  # fmt: skip

    return {
        "attention": Sample(
            ("attention_forward", "attention_backward"),
            {name: _noise(ROWS, HEADS, 64) * scale
             for name, scale in (("query", 1.0), ("key", 0.5), ("value", 2.0))},
            tensors, attend,
        ),
        "dropout_rows": Sample(
            ("dropout_rows",), {"x": _noise(ROWS, WIDTH)}, rows,
            lambda x, samples, positions: dropout_rows(x, 0.25, 1, 2, samples, positions),
        ),
        "linear_weighted_ce": Sample(
            ("linear_weighted_ce", "ce_rows_"),
            {"hidden": _noise(ROWS, WIDTH), "weight": _noise(99, WIDTH), "bias": _noise(99)},
            {"labels": torch.arange(ROWS) * 7 % 99, "weights": positions.float() / 9},
            linear_weighted_ce,
        ),
        "mask_tokens": Sample(
            ("mask_tokens",), {},
            {"ids": ids, "lengths": torch.tensor([ids.shape[1], 0, 5]), "numbers": numbers, **table},
            mask,
        ),
        "mask_tokens packed": Sample(
            ("mask_tokens",), {},
            {"ids": ids.flatten()[:-2], "lengths": lengths_of_ids, "numbers": numbers, **table},
            lambda ids, lengths, numbers, **kept: mask(ids, lengths, numbers, window=40, **kept),
        ),
        "insert_text": Sample(
            ("insert_text",), {}, {"index": torch.tensor([1, 0, 1])},
            lambda index: insert_text(index, pool, 1, 2, 1 << 31, 6, 2)[0],
        ),
        "crop_resize": Sample(
            ("crop_resize",), {},
            {"images": (images.permute(0, 2, 3, 1) * 50 + 128).to(torch.uint8),
             "crop": n([[0.1, 0.2, 0.9, 0.8], [0.0, 0.0, 1.0, 1.0]]), "flip": n([True, False])},
            lambda images, crop, flip: crop_resize(images, crop, flip, [0.5], [0.2], 8, 2)[1],
        ),
        "masked_mse": Sample(
            ("masked_mse", "masked_mse_backward"), {"predicted": _noise(2, 16, 192)},
            {"images": images, "mask": hidden},
            lambda predicted, images, mask: masked_mse(predicted, images, mask, 8, normalise=True),
        ),
        "window_mse": Sample(
            ("window_mse", "window_mse_backward"), {"predicted": _noise(2, 3, 16, 8)},
            {"images": images, "row": torch.tensor([0, 16]), "column": torch.tensor([24, 3])},
            window_mse,
        ),
        "patch_select": Sample(
            ("patch_select", "patch_select_backward"), {"images": images}, {"keep": keep},
            lambda images, keep: patch_select(images, keep, 8),
        ),
        "residual_norm": Sample(
            ("residual_norm", "residual_norm_backward"),
            {"x": _noise(ROWS, WIDTH), "residual": _noise(ROWS, WIDTH) * 2,
             "gamma": _noise(WIDTH), "beta": _noise(WIDTH) / 2, "bias": _noise(3, WIDTH)},
            {"owner": owner, **rows}, norm,
        ),
        "gather_rows": Sample(
            ("gather_rows", "scatter_rows"), {"x": _noise(ROWS, WIDTH)}, {"index": mixed}, gather_rows
        ),
        "scatter_rows": Sample(
            ("scatter_rows", "gather_rows"), {"x": _noise(4, WIDTH)}, {"index": mixed},
            lambda x, index: scatter_rows(x, index, ROWS),
        ),
        "select_rows": Sample(
            ("select_rows",), {}, {"mask": hidden},
            lambda mask: select_rows(mask, 20),
        ),
    }  # fmt: skip


def run(
    sample: Sample, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, Tensor]]:
    """Call with gradients.

    Returns:
        Output, and gradients by input name.
    """
    inputs = {
        name: value.to(device, dtype).detach().requires_grad_()
        for name, value in sample.inputs.items()
    }
    others = {name: value.to(device) for name, value in sample.others.items()}
    out = sample.call(**inputs, **others)
    if not inputs:
        return out, {}
    grads = torch.autograd.grad(out.float().square().sum(), list(inputs.values()))
    return out, dict(zip(inputs, grads, strict=True))
