"""A step of head training that memory has no room for is made in parts, recorded, and equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ecamp.errors import EcampError
from ecamp.train.head_recipe import HeadRecipe
from ecamp.train.heads import Model, train_head
from ecamp.train.oom import on_batch_halved

X = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _train(fits: int, batch_size: int = 32) -> tuple[torch.Tensor, list[tuple[str, int]]]:
    """Weights after five steps where only `fits` images have room, and what was recorded."""
    model = Model(nn.Linear(5, 1).double(), None)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.1)

    def loss_at(index: np.ndarray, step: int) -> torch.Tensor:
        loss = (model.head(X[torch.from_numpy(index)]) - 1).square().mean()
        if len(index) > fits:  # after the graph was made, as on a GPU
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    seen: list[tuple[str, int]] = []
    with on_batch_halved(lambda what, batch: seen.append((what, batch))):
        train_head(
            model, loss_at, lambda: 0.0, count=40, lr=0.01, seed=0,
            recipe=HeadRecipe(steps=5, batch_size=batch_size),
        )  # fmt: skip
    return model.head.weight.detach(), seen


def test_parts_give_the_gradients_of_the_whole() -> None:
    whole, nothing = _train(32)
    assert nothing == []
    for fits, sizes in ((31, [16]), (9, [16, 8]), (2, [16, 8, 4, 2])):
        parts, seen = _train(fits)
        assert seen == [("head training", size) for size in sizes]
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    uneven, _ = _train(12, batch_size=23)
    torch.testing.assert_close(uneven, _train(23, batch_size=23)[0], rtol=1e-12, atol=1e-12)


def test_two_images_that_do_not_fit_are_an_error_with_advice() -> None:
    with pytest.raises(EcampError, match="memory runs out even with 2 images") as caught:
        _train(1)
    assert "smaller encoder" in str(caught.value)


def test_other_errors_are_left_alone() -> None:
    model = Model(nn.Linear(5, 1), None)

    def loss_at(index: np.ndarray, step: int) -> torch.Tensor:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        train_head(model, loss_at, lambda: 0.0, count=4, lr=0.1, seed=0, recipe=HeadRecipe(steps=1))
