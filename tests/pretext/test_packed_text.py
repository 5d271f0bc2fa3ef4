"""Packed text against padded text, and both against BERT's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import BertConfig

from ecamp.pretext.ecamp.fusion import MODES
from ecamp.pretext.ecamp.packed_text import TextRows
from ecamp.pretext.ecamp.text_tower import TextTower


def tower(mode: str = "multi-scale", dropout: float = 0.0) -> TextTower:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=90, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=40, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return TextTower(config, 24, fusion=mode).train()


def batch(order: tuple[int, ...] = (0, 1, 2, 3)) -> tuple[dict[str, Tensor], Tensor]:
    """Reports of 12, 1, 30 and 7 tokens in a window of 31, and their visible patches."""
    source = torch.Generator().manual_seed(1)
    lengths = torch.tensor([12, 1, 30, 7])
    ids = torch.randint(5, 90, (4, 31), generator=source)
    padding = torch.arange(31) >= lengths[:, None]
    weights = torch.rand(4, 31, generator=source)
    predicted = ~padding & (torch.rand(4, 31, generator=source) < 0.5)
    fields = {
        "masked": torch.where(predicted, 3, ids).masked_fill(padding, 0), "labels": ids,
        "padding": padding, "predicted": predicted, "weights": weights,
        "sample_ids": torch.tensor([100, 7, 2**33, 0]),
    }  # fmt: skip
    patches = torch.randn(4, 9, 24, generator=source)
    index = list(order)
    return {name: value[index] for name, value in fields.items()}, patches[index]


def run(model: TextTower, fields: dict[str, Tensor], patches: Tensor, packed: bool) -> Tensor:
    real = ~fields["padding"]
    packed_fields = (fields[n][real] for n in ("masked", "labels", "predicted", "weights"))
    rows = TextRows.of(*packed_fields, real.sum(1), fields["sample_ids"], packed=packed)
    hidden = model.forward_rows(rows, patches, seed=5, step=9)
    return hidden if packed else hidden.unflatten(0, (4, -1))[real[:, : int(real.sum(1).max())]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_packed_equals_padded_dropout_included(mode: str, dropout: float) -> None:
    fields, patches = batch()
    results = []
    for packed in (True, False):
        model = tower(mode, dropout)
        hidden = run(model, fields, patches, packed)
        hidden.square().sum().backward()
        results.append(
            (hidden, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        )
    (left, mine), (right, theirs) = results
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)
    assert mine.keys() == theirs.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=2e-3, msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_without_dropout_it_is_berts_own_arithmetic(mode: str) -> None:
    fields, patches = batch()
    model = tower(mode)
    whole = model(fields["masked"], fields["padding"], patches)[~fields["padding"]]
    torch.testing.assert_close(run(model, fields, patches, True), whole, rtol=1e-4, atol=1e-5)


def test_in_double_it_is_berts_own_arithmetic_to_rounding() -> None:
    fields, patches = batch()
    model = tower().double()
    whole = model(fields["masked"], fields["padding"], patches.double())[~fields["padding"]]
    got = run(model, fields, patches.double(), True)
    torch.testing.assert_close(got, whole, rtol=1e-10, atol=1e-10)


def test_dropout_belongs_to_the_sample_not_to_its_place_in_the_batch() -> None:
    model = tower(dropout=0.5)
    fields, patches = batch()
    lengths = (~fields["padding"]).sum(1).tolist()
    whole = run(model, fields, patches, True).split(lengths)
    order = (2, 0, 3, 1)
    fields, patches = batch(order)
    again = run(model, fields, patches, True).split([lengths[i] for i in order])
    for place, i in enumerate(order):
        torch.testing.assert_close(again[place], whole[i], rtol=1e-5, atol=1e-5)


def test_bf16_stays_near_float() -> None:
    fields, patches = batch()
    model = tower(dropout=0.1)
    exact = run(model, fields, patches, True)
    with torch.autocast("cpu", torch.bfloat16):
        rough = run(model, fields, patches, True)
    assert (rough.float() - exact).abs().max() < 0.1


@pytest.mark.slow
def test_the_text_branch_compiles_whole_and_once_for_all_lengths() -> None:
    """One graph from rows to loss; batches of other lengths and other numbers of rows reuse it."""
    frames = CompileCounterWithBackend("aot_eager")
    model = tower(dropout=0.2)

    def loss(rows: TextRows, patches: Tensor, step: int) -> Tensor:
        hidden = model.forward_rows(rows, patches, 5, step)
        index = rows.predicted
        return model.loss(hidden[index], rows.labels[index], rows.weights[index])

    compiled = torch.compile(loss, fullgraph=True, backend=frames, dynamic=True)
    for step, lengths in enumerate([[12, 9, 30, 7], [5, 31, 2, 14], [20, 20, 21, 8]]):
        source = torch.Generator().manual_seed(step)
        length = torch.tensor(lengths)
        ids = torch.randint(5, 90, (int(length.sum()),), generator=source)
        predicted = torch.rand(len(ids), generator=source) < 0.4
        rows = TextRows.of(
            ids, ids, predicted, torch.rand(len(ids), generator=source), length,
            torch.tensor([4, 9, 2, 7]),
        )  # fmt: skip
        patches = torch.randn(4, 9, 24, generator=source)
        got = compiled(rows, patches, step)
        torch.testing.assert_close(got, loss(rows, patches, step), rtol=1e-5, atol=1e-6)
        got.backward()
    assert frames.frame_count <= 2, frames.frame_count
