"""Classification protocols: they learn, are deterministic, and follow their recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from ecamp.bench.features import feature_specs, fill_features
from ecamp.data.normalise import normaliser
from ecamp.published.downstream import schedules
from ecamp.tasks import feature_batches as running
from ecamp.tasks.classification import (
    knn as neighbours,
)
from ecamp.tasks.classification import (
    linear_probe,
    linear_sgd,
)
from ecamp.tasks.classification import (
    published as published_finetune,
)
from ecamp.tasks.classification import (
    selection as class_scores,
)
from ecamp.tasks.classification.linear_probe import regressions
from ecamp.testing.recipes import check_frozen, check_schedule
from ecamp.train import heads
from tests.tasks.arrays import planted_arrays
from tests.tasks.planted import INFO, Planted, Problem, build

# Chance is 0.5. The published probe does not standardise and is slow on random features.
LEARNS = {"linear": 0.97, "knn": 0.95, "linear-sgd": 0.85, "finetune": 0.97, "published": 0.85}
QUICK = {
    "linear": {}, "knn": {}, "linear-sgd": {"sgd_steps": 300}, "finetune": {"steps": 40},
    "published": {"steps": 150, "lr": 0.03},
}  # fmt: skip


@pytest.fixture(scope="module", params=["multilabel", "multiclass"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return Problem("cls", kind=request.param)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", LEARNS)
def test_a_planted_square_is_found_the_same_way_twice(problem: Problem, protocol: str) -> None:
    first, scores = problem.fit(protocol, **QUICK[protocol])
    assert problem.score(scores) > LEARNS[protocol]
    again, same = problem.fit(protocol, **QUICK[protocol])
    assert first.selected == again.selected
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert np.array_equal(scores["scores"], same["scores"])
    assert np.array_equal(scores["thresholds"], same["thresholds"])


@pytest.mark.slow
@pytest.mark.parametrize("protocol", LEARNS)
def test_batch_sizes_of_prediction_do_not_matter(
    problem: Problem, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = str(problem.splits["train"].targets["kind"])
    _, whole = problem.fit(protocol, **QUICK[protocol])
    monkeypatch.setattr(running, "BATCH", 7)
    monkeypatch.setattr(neighbours, "BLOCK", 5)
    other = Problem("cls", kind=kind, batch=5)
    _, parts = other.fit(protocol, **QUICK[protocol])
    np.testing.assert_allclose(parts["scores"], whole["scores"], atol=2e-4)


@pytest.mark.slow
def test_fine_tuning_changes_the_encoder_and_learns_what_a_probe_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = Problem("cls", train=64)
    # From a probe that knows nothing, and the last weights kept: only training can have learnt it.
    monkeypatch.setattr(linear_probe, "PENALTIES", (1e-9,))
    predictor, scores = problem.fit("finetune", steps=60, validations=1, encoder_lr_scale=1.0)
    assert problem.score(scores) > 0.9
    start, moved = build(problem.encoder_name), predictor.model.encoder
    changed = [
        name for name, weight in start.named_parameters()
        if not torch.equal(weight, moved.get_parameter(name))
    ]  # fmt: skip
    assert len(changed) == len(list(start.named_parameters()))


def test_fine_tuning_that_does_not_help_gives_the_probe_back() -> None:
    problem = Problem("cls")
    probe, expected = problem.fit("linear")
    tuned, scores = problem.fit("finetune", steps=5, lr=1e-12)
    assert tuned.selected["step"] == 0
    assert tuned.selected["val_auroc"] == probe.selected["val_auroc"]
    np.testing.assert_allclose(scores["scores"], expected["scores"], atol=1e-4)


# --- the linear probe -----------------------------------------------------------------------------


def _drawn(seed: int, n: int, width: int, classes: int, unknown: float) -> tuple:
    rng = np.random.Generator(np.random.Philox(seed))
    features = rng.normal(size=(n, width))
    chance = 1 / (1 + np.exp(-features @ rng.normal(size=(width, classes))))
    labels = (rng.random((n, classes)) < chance).astype(np.float32)
    labels[rng.random((n, classes)) < unknown] = np.nan
    return features, labels


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(8, 60), st.integers(1, 12), st.integers(1, 4),
    st.sampled_from([0.0, 0.3]),
)  # fmt: skip
def test_multilabel_regressions_are_scikit_learns(
    seed: int, n: int, width: int, classes: int, unknown: float
) -> None:
    features, labels = _drawn(seed, n, width, classes, unknown)
    penalties = (0.01, 1.0)
    path = regressions(features, labels, penalties, exclusive=False)
    for penalty, (weight, bias) in zip(penalties, path, strict=True):
        for k in range(classes):
            known = np.isfinite(labels[:, k])
            truth = labels[known, k] > 0.5
            if len(np.unique(truth)) < 2:
                assert not weight[k].any()
                assert bias[k] == (30.0 if truth.all() and known.any() else -30.0)
                continue
            model = LogisticRegression(C=penalty, tol=1e-8, max_iter=5000)
            model.fit(features[known], truth)
            np.testing.assert_allclose(weight[k], model.coef_[0], atol=2e-3)
            np.testing.assert_allclose(bias[k], model.intercept_[0], atol=2e-3)


@pytest.mark.parametrize("missing", [None, 1])
def test_exclusive_regressions_are_scikit_learns(missing: int | None) -> None:
    features, _ = _drawn(3, 90, 5, 1, 0.0)
    rng = np.random.Generator(np.random.Philox(4))
    truth = (features[:, :4].argmax(1) + (rng.random(90) < 0.2)) % 4
    if missing is not None:
        truth[truth == missing] = 0
    labels = np.eye(4, dtype=np.float32)[truth]
    labels[::11, 2] = np.nan  # a row with an unknown label is left out
    kept = np.isfinite(labels).all(1)
    (_, (weight, bias)) = regressions(features, labels, (0.1, 2.0), exclusive=True)
    model = LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(features[kept], truth[kept])
    logits = features @ weight.T + bias
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(chances[:, model.classes_], model.predict_proba(features), atol=1e-3)
    if missing is not None:
        assert chances[:, missing].max() < 1e-9


def test_one_exclusive_class_in_training_is_always_predicted() -> None:
    labels = np.tile(np.float32([0, 1, 0]), (5, 1))
    ((weight, bias),) = regressions(np.ones((5, 2)), labels, (1.0,), exclusive=True)
    assert not weight.any()
    assert bias.argmax() == 1


def test_large_problems_in_float32_agree_with_float64() -> None:
    features, labels = _drawn(5, 400, 20, 3, 0.1)
    exact = list(regressions(features, labels, (0.1, 10.0), False))
    rounded = list(regressions(features.astype(np.float32), labels, (0.1, 10.0), False))
    for (a, b), (c, d) in zip(exact, rounded, strict=True):
        np.testing.assert_allclose(features @ c.T + d, features @ a.T + b, atol=5e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_macro_auroc_is_scikit_learns(seed: int, n: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    scores = rng.integers(0, 5, (n, 3)).astype(np.float32)
    targets = rng.choice(np.float32([0, 1, np.nan]), (n, 3))
    expected = []
    for k in range(3):
        known = np.isfinite(targets[:, k])
        if len(np.unique(targets[known, k])) == 2:
            expected.append(roc_auc_score(targets[known, k], scores[known, k]))
    got = class_scores.macro_auroc(scores, targets)
    assert (np.isnan(got) and not expected) or got == pytest.approx(np.mean(expected))


# --- k nearest neighbours -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 40])
def test_votes_are_scikit_learns(count: int) -> None:
    rng = np.random.Generator(np.random.Philox(1))
    bank = rng.normal(size=(60, 8)).astype(np.float32)
    queries = rng.normal(size=(20, 8)).astype(np.float32)
    labels = (rng.random((60, 2)) < 0.4).astype(np.float32)
    unit = [torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (queries, bank)]
    got = neighbours.vote(*neighbours.nearest(*unit, 50), torch.from_numpy(labels), count, 0.2)
    for k in range(2):
        model = KNeighborsClassifier(
            count, metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / 0.2)
        ).fit(bank, labels[:, k])
        np.testing.assert_allclose(got[:, k], model.predict_proba(queries)[:, 1], atol=1e-4)


def test_unknown_labels_do_not_vote() -> None:
    similarity, rows = torch.tensor([[0.9, 0.8, 0.1]]), torch.tensor([[0, 1, 2]])
    labels = torch.tensor([[torch.nan, torch.nan], [1.0, torch.nan], [0.0, 1.0]])
    got = neighbours.vote(similarity, rows, labels, 2, 0.1)
    assert got[0, 0] == pytest.approx(1.0)
    assert got[0, 1] == pytest.approx(1.0)  # no neighbour is labelled: the prevalence in training


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "protocol", "options"),
    [
        (heads, "finetune", {"steps": 30}),
        (heads, "published", {"steps": 30}),
        (linear_sgd, "linear-sgd", {"sgd_steps": 40}),
    ],
)
def test_the_lr_ends_where_training_ends_and_one_that_rises_again_is_caught(
    module: object, protocol: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, rates = Problem("cls", train=32), []
    real = module.set_lr
    monkeypatch.setattr(
        module, "set_lr", lambda optimizer, lr: (rates.append(lr), real(optimizer, lr))
    )

    def runs() -> list[list[float]]:
        rates.clear()
        problem.fit(protocol, **options)
        steps = next(iter(options.values()))
        return [rates[i : i + steps] for i in range(0, len(rates), steps)]

    for run in runs():
        check_schedule(run)

    def published(step: int, total: int, warmup: int) -> float:
        return schedules.warmup_cosine(step, warmup=warmup, total=total // 2)

    monkeypatch.setattr(module, "warmup_cosine", published)
    for run in runs():
        with pytest.raises(AssertionError, match="rises again"):
            check_schedule(run)


def test_a_schedule_that_is_cut_short_is_caught() -> None:
    rates = [schedules.warmup_cosine(step, warmup=2, total=100) for step in range(60)]
    with pytest.raises(AssertionError, match="aims elsewhere"):
        check_schedule(rates)


DROPS = (
    "timm/vit_tiny_patch16_224?image_size=32&options={drop_path_rate: 0.9, depth: 3, "
    "embed_dim: 32, num_heads: 2, patch_size: 8}"
)


def test_drop_path_is_off_under_linear_and_one_left_on_is_caught() -> None:
    images = normaliser(INFO)(Planted(6).images)
    encoder = build(DROPS)

    def encode(images: torch.Tensor):
        with torch.no_grad():
            return encoder(images)

    check_frozen(encode, images)
    encoder.train()  # as the published probe leaves it
    with pytest.raises(AssertionError, match="dropout is on"):
        check_frozen(encode, images)
    encoder = build("timm/resnet18?image_size=32").train()
    with pytest.raises(AssertionError, match=r"dropout is on|other images"):
        check_frozen(encode, images)


def test_the_bench_turns_drop_path_off_itself() -> None:
    arrays, encoder = planted_arrays(12), build(DROPS)

    def pooled() -> torch.Tensor:
        specs, _ = feature_specs(encoder, arrays, frozenset({"pooled"}))
        out = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in specs.items()}
        encoder.train()
        fill_features(encoder, arrays, out)
        return out["pooled"]

    assert torch.equal(pooled(), pooled())


def test_published_fine_tuning_starts_near_zero_and_drops_paths() -> None:
    encoder = build("vit-micro?width=32&depth=3&heads=2&image_size=32&patch_size=8")
    assert published_finetune.drop_paths(encoder) == 3
    rates = [getattr(b.drop_path2, "drop_prob", 0.0) for b in encoder.modules()
             if hasattr(b, "drop_path2")]  # fmt: skip
    assert rates == pytest.approx([0, 0.05, 0.1])
    assert published_finetune.drop_paths(build("timm/resnet18?image_size=32")) == 0
    head = published_finetune.FreshHead(32, 2)
    assert float(head.linear.weight.detach().abs().max()) < 1e-4
    # Every weight moves at one rate: no decay by layer, no slower encoder.
    problem = Problem("cls", train=16)
    predictor, _ = problem.fit("published", steps=1, lr=1.0)
    start = build(problem.encoder_name)
    moved = predictor.model.encoder
    assert all(
        not torch.equal(weight, moved.get_parameter(name))
        for name, weight in start.named_parameters()
    )
