"""The published arithmetic where golden vectors do not look: grammar, small grids, plain loops."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig

from ecamp.api.dataset import DatasetInfo
from ecamp.api.encoder import PatchEncoder
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import Objective, PretextBatch, PretextContext
from ecamp.encoders.position import resize_table, sincos_table
from ecamp.errors import DataError, UsageError
from ecamp.plugin.host import make_plugin
from ecamp.published.pretraining import keys
from ecamp.published.pretraining.image import (
    SuperResolution,
    published_table,
    window_cells,
    window_mask,
)
from ecamp.published.pretraining.masking import (
    Vocabulary,
    insert_distilled,
    mask,
    mask_batch,
    plan,
    weigh,
)
from ecamp.published.pretraining.model import PublishedModel
from ecamp.text.tokenizer import train_tokenizer

# Ids: 0 padding, 1 unknown, 2 [CLS], 3 [MASK], 5 full stop, 10-14 the negations, 20s entities,
# 30s pieces, the rest plain words.
WORDS = Vocabulary(
    entities=frozenset({20, 21}),
    pieces=frozenset({30, 31}),
    templates=((10, 11, 12, 13, 14), (10, 11, 12)),
    mask=3,
    pad=0,
    stop=5,
)
REPORTS = (
    "There is a small left pneumothorax.",
    "No pleural effusion.. Moderate cardiomegaly with edema.",
    "",
    "There is no evidence of consolidation. There is no effusion.",
)
words = st.lists(
    st.sampled_from([5, 20, 21, 40, 41, (10, 11, 12), (10, 11, 12, 13, 14), (40, 30), (20, 31)]),
    max_size=14,
)


def _ids(sentence: list, size: int = 80) -> list[int]:
    flat = [2]
    for word in sentence:
        flat += word if isinstance(word, tuple) else (word,)
    return (flat + [0] * size)[:size]


@given(words, st.integers(0, 10_000))
def test_masking_keeps_its_rules(sentence: list, seed: int):
    ids = _ids(sentence)
    found = plan(ids, WORDS)
    masked = mask(ids, found, WORDS, random.Random(seed))
    for i, (before, after) in enumerate(zip(ids, masked, strict=True)):
        if i in (0, len(ids) - 1) or before == 0:
            assert after == before
        assert after in (before, 3)
        if before in WORDS.pieces:
            head_is_entity = ids[i - 1] in WORDS.entities
            assert (after == 3) == (masked[i - 1] == 3 and not head_is_entity)


@given(words)
def test_weights_sum_to_the_length_and_leave_entities_and_padding_alone(sentence: list):
    ids = _ids(sentence)
    found = plan(ids, WORDS)
    weights = weigh(ids, found, WORDS)
    assert weights.sum() == pytest.approx(len(ids), rel=1e-5)
    if found.context:
        untouched = {*found.entities} - {*found.context} | {*range(ids.index(0), len(ids))}
        assert all(weights[i] == 1 for i in untouched)


def test_a_bare_negation_raises_a_score_that_it_should_lower():
    ids = _ids([(10, 11, 12), 20, 5])
    found = plan(ids, WORDS)
    assert found.context == (3, 2)
    weights = weigh(ids, found, WORDS)
    # D=3, M=2, L=2: (0.95 * 1 + 2) / (2 - 1.9) = 29.5
    np.testing.assert_allclose(weights[:5], [1, 0.05, 1.475, 1.475, 1], rtol=1e-6)


def test_context_skips_the_full_stop_and_continues_before_it():
    assert plan(_ids([40, 5, 20]), WORDS).context == (1,)
    assert plan(_ids([20, 21]), WORDS).context == (1,)
    assert plan(_ids([20]), WORDS).context == ()


def test_an_entity_behind_a_literal_padding_token_changes_the_probability_only():
    found = plan([2, 40, 0, 20, 40, 0, 0, 0], WORDS)
    assert (found.end, found.entities, found.p_other) == (2, (), 0.70)
    assert plan([2, 40, 0, 41, 40, 0, 0, 0], WORDS).p_other == 0.75


def test_a_template_close_to_the_end_is_not_found():
    ids = [2, 40, 40, 10, 11, 12, 40, 40]
    assert weigh(ids, plan(ids, WORDS), WORDS)[3] < 1
    late = [2, 40, 40, 40, 10, 11, 12, 40]
    assert (weigh(late, plan(late, WORDS), WORDS) == 1).all()


class _Draws:
    """Recorded draws."""

    def __init__(self, first: float, place: int) -> None:
        self.first, self.place = first, place

    def random(self) -> float:
        return self.first

    def randint(self, a: int, b: int) -> int:
        assert a <= self.place <= b
        return self.place


def test_distilled_text_is_put_between_full_stops_even_inside_numbers():
    report = "A nodule of 2.5 cm. No more."
    assert insert_distilled(report, "X.", _Draws(0.8, 0)) == report
    assert insert_distilled(report, "X.", _Draws(0.79, 0)) == "X.A nodule of 2.5 cm. No more."
    assert insert_distilled(report, "X.", _Draws(0.0, 1)) == "A nodule of 2.X.5 cm. No more."
    assert insert_distilled("Clear.", "X", _Draws(0.0, 1)) == "Clear.X."


def test_words_that_are_not_whole_tokens_cannot_match():
    tokenizer = train_tokenizer(["pneumonia " * 5, "there is no evidence of pneumonia"] * 3, 200)
    found = Vocabulary.of(tokenizer)
    assert found.entities == {tokenizer.token_to_id("pneumonia")}
    assert [len(template) for template in found.templates] == [5, 3]
    assert Vocabulary.of(train_tokenizer(["abc"], 64)).templates == ()


def test_a_batch_is_its_reports():
    rows = [_ids([20, 40, 5]), _ids([(10, 11, 12), 21])]
    sources = [random.Random(1), random.Random(2)]
    ids, weights = mask_batch(torch.tensor(rows), WORDS, sources)
    for i, row in enumerate(rows):
        found = plan(row, WORDS)
        assert ids[i].tolist() == mask(row, found, WORDS, random.Random(i + 1))
        assert np.array_equal(weights[i].numpy(), weigh(row, found, WORDS))


def test_column_moves_a_window_down_and_row_moves_it_across():
    masks = window_mask(torch.tensor([0, 2]), torch.tensor([1, 0]), 5)
    expected = torch.zeros(2, 5, 5, dtype=torch.bool)
    expected[0, 1:4, 0:3] = expected[1, 0:3, 2:5] = True
    assert torch.equal(masks, expected)
    with pytest.raises(UsageError, match="grid of 2 patches"):
        window_cells(2)


def test_super_resolution_has_168_parameters_and_never_goes_below_zero():
    head = SuperResolution(3, 2)
    assert sum(p.numel() for p in head.parameters()) == 168
    out = head(torch.randn(2, 3, 8, 8))
    assert out.shape == (2, 3, 16, 16)
    assert float(out.detach().min()) == 0.0


def test_the_published_table_divides_by_four_times_too_much():
    table, right = published_table(16, 3, 3), sincos_table(16, 3, 3)
    assert not table[0].any()
    np.testing.assert_allclose(table[1:][3][8 + 3], np.sin(10_000 ** (-3 / 16)), rtol=1e-6)
    np.testing.assert_allclose(right[3][8 + 3], np.sin(10_000 ** (-3 / 4)), rtol=1e-6)


def test_a_table_is_resized_except_its_class_token():
    table = torch.randn(1, 17, 6)
    resized = resize_table(table, 8, 8)
    assert resized.shape == (1, 65, 6)
    assert torch.equal(resized[:, 0], table[:, 0])
    assert resize_table(table, 4, 4) is table
    with pytest.raises(ValueError, match="not a square"):
        resize_table(table[:, :-1], 8, 8)


def _encoder() -> PatchEncoder:
    torch.manual_seed(0)
    ref = PluginRef.parse("vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8")
    return make_plugin("ecamp.encoders", ref).build(1)


def _objective(**options: object) -> Objective:
    encoder = _encoder()
    context = PretextContext(DatasetInfo(name="x", version="1"), REPORTS, 2)
    return make_plugin("ecamp.pretext", PluginRef(name="ecamp-published", options=options)).build(
        encoder, context
    )


def _batch(step: int = 7, index: tuple[int, ...] = (0, 1, 2, 3)) -> PretextBatch:
    generator = torch.Generator().manual_seed(3)
    large = torch.randn(4, 1, 64, 64, generator=generator)
    crop = torch.tensor([[0.0, 0, 1, 1]]).expand(4, -1)
    return PretextBatch(
        torch.zeros(4, 1, 32, 32), large, torch.tensor(index), crop,
        torch.zeros(4, dtype=torch.bool), generator, step, 0,
    )  # fmt: skip


def test_switches_that_the_published_code_fixes_are_refused():
    with pytest.raises(UsageError, match=r"(?s)norm_pix.*weight_sr"):
        _objective(norm_pix=False, weight_sr=2.0)


def test_another_tokenizer_file_is_another_pretraining(tmp_path: Path):
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    ref = PluginRef(name="ecamp-published", options={"tokenizer": str(file)})
    before = make_plugin("ecamp.pretext", ref).identity_fields()
    file.write_text("[]")
    assert make_plugin("ecamp.pretext", ref).identity_fields() != before


def test_a_step_follows_from_seed_step_and_samples():
    objective = _objective()
    first, again = objective(_batch()), objective(_batch())
    assert set(first) == {"loss", "mim", "sr", "mlm"}
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in again.items()}
    assert objective(_batch(step=8))["mlm"].item() != first["mlm"].item()
    assert first["loss"].item() == pytest.approx(
        sum(first[k].item() for k in ("mim", "sr", "mlm")), rel=1e-6
    )


def test_masks_of_a_report_do_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch):
    objective, seen = _objective(), []
    monkeypatch.setattr(
        objective,
        "losses",
        lambda *args: seen.append(args[4]) or PublishedModel.losses(objective, *args),
    )
    objective(_batch(index=(0, 1, 2, 3)))
    objective(_batch(index=(3, 1, 0, 0)))
    assert torch.equal(seen[0][[3, 1, 0, 0]], seen[1])


def test_doubled_full_stops_are_made_single_before_encoding():
    objective = _objective()
    row = objective.ids[1, : objective.lengths[1]].tolist()
    stop = objective.tokenizer.token_to_id(".")
    assert row.count(stop) == 2


def test_every_parameter_but_the_position_table_gets_a_gradient():
    objective = _objective()
    objective(_batch())["loss"].backward()
    without = {name for name, value in objective.named_parameters() if value.grad is None}
    assert without == {"encoder.vit.pos_embed"}


def test_an_encoder_from_scratch_gets_the_published_start_and_a_trained_one_is_left_alone():
    fresh = _objective().encoder
    assert torch.equal(fresh.vit.pos_embed[0], published_table(32, 4, 4))
    trained = _encoder()
    trained.pretrained = True
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    context = PretextContext(DatasetInfo(name="x", version="1"), REPORTS, 2)
    plugin = make_plugin("ecamp.pretext", PluginRef.parse("ecamp-published"))
    plugin.build(trained, context)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def _model() -> PublishedModel:
    text = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=20, max_position_embeddings=9, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(4)
    return PublishedModel(_encoder(), (24, 1, 2), text).double()


def test_losses_are_means_over_all_pixels_and_all_positions():
    model, generator = _model(), torch.Generator().manual_seed(5)
    large = torch.randn(2, 1, 64, 64, dtype=torch.float64, generator=generator)
    noise = torch.rand(2, 16, generator=generator)
    row, column = torch.tensor([2, 0]), torch.tensor([1, 2])
    labels = torch.tensor([[2, 5, 6, 7, 0, 0], [2, 9, 8, 7, 6, 5]])
    ids, real = labels.clone(), (labels > 0).long()
    ids[0, 2] = ids[1, 3] = 3
    weights = torch.rand(2, 6, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        out = model.losses(large, noise, row, column, ids, labels, real, weights)
    small, predicted = out.small.numpy(), out.predicted.numpy()
    refined, total_small, total_large = out.refined.numpy(), 0.0, 0.0
    for image in range(2):
        kept = set(np.argsort(noise[image].numpy())[:4].tolist())
        for patch in set(range(16)) - kept:
            y, x = 8 * (patch // 4), 8 * (patch % 4)
            tile = small[image, 0, y : y + 8, x : x + 8]
            total_small += ((predicted[image, patch].reshape(8, 8) - tile) ** 2).sum()
        y, x = 16 * int(column[image]), 16 * int(row[image])
        window = np.s_[image, 0, y : y + 32, x : x + 32]
        total_large += ((refined[window] - large.numpy()[window]) ** 2).sum()
    assert float(out.mim) == pytest.approx(total_small / (2 * 32 * 32))
    assert float(out.sr) == pytest.approx(total_large / (2 * 64 * 64))
    scores = out.logits.log_softmax(-1)
    text = sum(
        -float(weights[i, j] * scores[i, j, labels[i, j]]) for i in range(2) for j in range(6)
    )
    assert float(out.mlm) == pytest.approx(text / 12)


def test_the_class_token_takes_part_in_decoding():
    decoder = _model().decoder
    tokens, keep = torch.randn(1, 5, 32, dtype=torch.float64), torch.tensor([[3, 0, 9, 15]])
    other = tokens.clone()
    other[:, 0] += 1
    with torch.no_grad():
        assert not torch.allclose(decoder(tokens, keep), decoder(other, keep))


def test_names_translate_both_ways():
    state = _model().state_dict()
    published = keys.to_published(state)
    unused = {name: torch.zeros(1) for name in keys.UNUSED}
    back = keys.to_ours({**published, **unused}, state)
    assert set(back) == set(state)
    assert all(back[name] is state[name] for name in state)
    _model().load_state_dict(back)


def test_what_does_not_fit_a_checkpoint_is_named():
    state = _model().state_dict()
    published = keys.to_published(state)
    published["novel.weight"] = torch.zeros(1)
    published["cls_token"] = torch.zeros(1, 1, 5)
    del published["bert_mlp.bias"]
    published[keys.BIAS_TWIN] = published[keys.BIAS] + 1
    with pytest.raises(DataError) as caught:
        keys.to_ours(published, state, "some.pth")
    message = str(caught.value)
    for part in (
        "some.pth", "unexpected novel.weight", "cls_token is (1, 1, 5), not (1, 1, 32)",
        "missing bert_mlp.bias", "decoder.bias differs from",
    ):  # fmt: skip
        assert part in message
    with pytest.raises(DataError, match="not a parameter"):
        keys.to_published({"refine.weight": torch.zeros(1)})
