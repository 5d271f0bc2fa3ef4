"""Retrieval metrics against searching through all pairs, one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.metrics import retrieval
from ecamp.metrics.retrieval import retrieval_ranks, score_retrieval


def _ranks_plainly(images: np.ndarray, texts: np.ndarray, of: np.ndarray) -> tuple[list, list]:
    """Rank in a collection that contains every image's report, copies included."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return round(float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)), 9)

    n = len(images)
    similarity = [[cosine(images[i], texts[of[j]]) for j in range(n)] for i in range(n)]
    to_text, to_image = [], []
    for asked in range(n):
        for table, out in (
            (similarity[asked], to_text),
            ([similarity[i][asked] for i in range(n)], to_image),
        ):
            own = max(table[j] for j in range(n) if of[j] == of[asked])
            wrong = [table[j] for j in range(n) if of[j] != of[asked]]
            out.append(1 + sum(w > own for w in wrong) + sum(w == own for w in wrong) / 2)
    return to_text, to_image


@settings(max_examples=120, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3))
def test_ranks_are_those_of_a_plain_search(
    data: st.DataObject, n: int, width: int, block: int
) -> None:
    of = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    of = np.unique(of, return_inverse=True)[1]
    small = st.integers(-2, 2)  # small whole numbers: ties, opposites and zeros
    rows = st.lists(small, min_size=width, max_size=width)
    images = np.array(data.draw(st.lists(rows, min_size=n, max_size=n)), np.float32)
    count = int(of.max()) + 1
    texts = np.array(data.draw(st.lists(rows, min_size=count, max_size=count)), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "BLOCK", block)
        got = retrieval_ranks(images, texts, of)
    expected = _ranks_plainly(images.astype(np.float64), texts.astype(np.float64), of)
    np.testing.assert_allclose(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1])


def test_identical_reports_count_as_right() -> None:
    # Images 0 and 2 have one report; image 2 is nearer to it than image 0 is.
    images = np.array([[1.0, 0.5], [0.0, 1.0], [1.0, 0.0]])
    texts = np.array([[1.0, 0.0], [0.0, 1.0]])
    to_text, to_image = retrieval_ranks(images, texts, np.array([0, 1, 0]))
    assert to_text.tolist() == [1, 1, 1]
    assert to_image.tolist() == [1, 1, 1]


def test_a_constant_encoder_ranks_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 37)).astype(np.float32)
    of = np.arange(40)
    for images, texts in (
        (np.tile(one, (40, 1)), np.tile(one, (40, 1))),
        (np.tile(one, (40, 1)), rng.normal(size=(40, 37))),
    ):
        _, to_image = retrieval_ranks(images, texts, of)
        assert (to_image == 20.5).all()
    scored = score_retrieval(np.tile(one, (40, 1)), np.tile(one, (40, 1)), of, np.ones((1, 40)))
    assert scored["mean_recall"].value == 0
    assert scored["chance_recall@10"].value == pytest.approx(0.25)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25))
def test_replicates_are_the_metric_on_the_resampled_askers(seed: int, n: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    of = np.unique(rng.integers(0, n, n), return_inverse=True)[1]
    images, texts = rng.normal(size=(n, 3)), rng.normal(size=(of.max() + 1, 3))
    counts = rng.multinomial(n, np.full(n, 1 / n), 7).astype(np.float32)
    scored = score_retrieval(images, texts, of, counts)
    ranks = dict(zip(("i2t", "t2i"), retrieval_ranks(images, texts, of), strict=True))
    for name, rank in ranks.items():
        for k in (1, 5, 10):
            metric = scored[f"{name}_recall@{k}"]
            assert metric.value == pytest.approx((rank <= k).mean())
            again = [(np.repeat(rank, c.astype(int)) <= k).mean() for c in counts]
            np.testing.assert_allclose(metric.replicates, again)
        metric = scored[f"{name}_median_rank"]
        assert metric.value == np.median(rank)
        again = [np.median(np.repeat(rank, c.astype(int))) for c in counts]
        np.testing.assert_allclose(metric.replicates, again)
    six = [scored[f"{way}_recall@{k}"].value for way in ranks for k in (1, 5, 10)]
    assert scored["mean_recall"].value == pytest.approx(np.mean(six))


@pytest.mark.parametrize(("total", "right", "k"), [(6, 1, 1), (6, 2, 3), (5, 5, 1), (4, 1, 10)])
def test_chance_is_the_fraction_of_draws_with_a_correct_answer(
    total: int, right: int, k: int
) -> None:
    draws = list(combinations(range(total), min(k, total)))
    share = np.mean([min(draw) < right for draw in draws])
    assert retrieval._chance(total, right, k) == pytest.approx(share)
