"""Context fusion and text tower against a plain numpy computation and their own promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import BertConfig

from ecamp.pretext.ecamp.fusion import MODES, ContextFusion
from ecamp.pretext.ecamp.text_tower import TextTower

CONFIG = BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=24, max_position_embeddings=12, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)  # fmt: skip


def _inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    text, patches, token = (
        torch.randn(2, n, 16, dtype=torch.float64, generator=generator) for n in (6, 5, 1)
    )
    padding, patch_padding = (
        torch.zeros(2, 6, dtype=torch.bool),
        torch.zeros(2, 5, dtype=torch.bool),
    )
    padding[1, 4:] = patch_padding[0, 3:] = True
    return text, patches, token, padding, patch_padding


def _layer(mode: str = "multi-scale", config: BertConfig = CONFIG) -> ContextFusion:
    torch.manual_seed(1)
    layer = ContextFusion(config, mode).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def _plain(layer: ContextFusion, image: int, *inputs: torch.Tensor) -> np.ndarray:
    """The layer for one sample, written out over numpy arrays."""
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    text, patches, token, padding, patch_padding = (value[image].numpy() for value in inputs)

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attend(name: str, x: np.ndarray, source: np.ndarray, real: np.ndarray) -> np.ndarray:
        query, key, value = (
            dense(f"{name}.{part}", z)
            for part, z in (("query", x), ("key", source[real]), ("value", source[real]))
        )
        heads = []
        for head in np.split(np.arange(16), 4):
            scores = np.exp(query[:, head] @ key[:, head].T / 2)
            heads.append(scores / scores.sum(1, keepdims=True) @ value[:, head])
        return np.concatenate(heads, 1)

    attended = attend("attention.self", text, text, ~padding)
    text = norm("attention.output.LayerNorm", text + dense("attention.output.dense", attended))
    context = np.zeros_like(text)
    if layer.fine:
        context = context + attend("cross_attention", text, patches, ~patch_padding)
    if layer.coarse:
        context = context + dense("global_projection", token)
    if layer.mode != "none":
        text = norm("merge.LayerNorm", text + dense("merge.dense", context))
    inner = dense("intermediate.dense", text)
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return norm("output.LayerNorm", text + dense("output.dense", inner))


@pytest.mark.parametrize("mode", MODES)
def test_the_layer_equals_a_plain_computation(mode: str):
    layer, inputs = _layer(mode), _inputs()
    with torch.no_grad():
        out = layer(*inputs)
    for image in range(2):
        np.testing.assert_allclose(out[image].numpy(), _plain(layer, image, *inputs), atol=1e-10)


def test_attention_is_a_distribution_over_real_patches_and_changes_nothing():
    layer, inputs = _layer(), _inputs()
    with torch.no_grad():
        plain = layer(*inputs)
        out, attention = layer(*inputs, need_attention=True)
    assert attention.shape == (2, 4, 6, 5)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    assert not attention[0, :, :, 3:].any()
    assert attention[1].min() > 0


def test_a_text_of_padding_only_gets_equal_attention_and_no_nan():
    layer, (text, patches, token, padding, _) = _layer(), _inputs()
    with torch.no_grad():
        out = layer(text, patches, token, torch.ones_like(padding))
    assert torch.isfinite(out).all()


def test_a_mode_without_cross_attention_returns_no_attention():
    text, patches, token, *_ = _inputs()
    with pytest.raises(ValueError, match="'global' has no cross-attention"):
        _layer("global")(text, patches, token, need_attention=True)
    with pytest.raises(ValueError, match="'both' is not one of multi-scale"):
        ContextFusion(CONFIG, "both")


@pytest.mark.parametrize("need_attention", [False, True])
def test_dropout_is_drawn_in_training_only(need_attention: bool):
    config = BertConfig(**{**CONFIG.to_dict(), "attention_probs_dropout_prob": 0.5})
    layer, (text, patches, token, *_) = _layer(config=config), _inputs()

    def run() -> torch.Tensor:
        out = layer(text, patches, token, need_attention=need_attention)
        return out[0] if need_attention else out

    with torch.no_grad():
        assert not torch.equal(run(), run())
        layer.eval()
        assert torch.equal(run(), run())


def _tower(**options: object) -> TextTower:
    torch.manual_seed(2)
    return TextTower(CONFIG, 10, **options).double()


def _text() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 50, (3, 8), generator=generator)
    padding = torch.arange(8) >= torch.tensor([[8], [5], [2]])
    patches = torch.randn(3, 4, 10, dtype=torch.float64, generator=generator)
    return ids.masked_fill(padding, 0), padding, patches


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("fusion", MODES)
def test_every_parameter_of_the_tower_gets_a_gradient(tied: bool, fusion: str):
    tower = _tower(tied=tied, fusion=fusion)
    tower.logits(tower(*_text())).square().sum().backward()
    assert not [name for name, value in tower.named_parameters() if value.grad is None]


def test_real_positions_ignore_values_under_padding():
    tower, (ids, padding, patches) = _tower(), _text()
    with torch.no_grad():
        hidden = tower(ids, padding, patches)
        other = tower(ids.masked_fill(padding, 7), padding, patches)
        short = tower(ids[1:2, :5], padding[1:2, :5], patches[1:2])
    torch.testing.assert_close(hidden[~padding], other[~padding])
    torch.testing.assert_close(hidden[1:2, :5], short)


def test_tied_scores_are_products_with_the_word_embeddings():
    tower, rows = _tower(), torch.randn(4, 16, dtype=torch.float64)
    words = tower.embeddings.word_embeddings.weight
    torch.testing.assert_close(tower.logits(rows), tower.transform(rows) @ words.T + tower.bias)
    untied = _tower(tied=False)
    extra = set(untied.state_dict()) - set(tower.state_dict())
    assert extra == {"output.weight"}


@pytest.mark.parametrize("tied", [True, False])
def test_the_padding_row_starts_at_zero_and_words_with_std_002(tied: bool):
    words = _tower(tied=tied).embeddings.word_embeddings.weight.detach()
    assert not words[0].any()
    assert float(words[1:].std()) == pytest.approx(0.02, rel=0.1)


def test_the_loss_equals_a_loop_over_predicted_positions():
    tower, (ids, padding, patches) = _tower(), _text()
    mask, weights = ~padding & (ids % 2 == 0), torch.rand(3, 8, dtype=torch.float64)
    with torch.no_grad():
        hidden = tower(ids, padding, patches)
        loss = tower.loss(hidden[mask], ids[mask], weights[mask])
        scores = tower.logits(hidden).log_softmax(-1)
    top = sum(-weights[i, j] * scores[i, j, ids[i, j]] for i, j in mask.nonzero().tolist())
    assert float(loss) == pytest.approx(float(top / weights[mask].sum()), rel=1e-6)


def test_attention_comes_out_of_the_tower_and_bf16_stays_finite():
    tower, (ids, padding, patches) = _tower().float(), _text()
    with torch.autocast("cpu", torch.bfloat16):
        hidden, attention = tower(ids, padding, patches.float(), need_attention=True)
        plain = tower(ids, padding, patches.float())
    assert attention.shape == (3, 4, 8, 4)
    assert torch.isfinite(hidden).all()
    assert torch.isfinite(plain).all()
