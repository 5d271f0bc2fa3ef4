"""Outline distance and FROC against plain loops; the published mAP where it misleads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.metrics.boxes import Boxes
from ecamp.metrics.detection import FALSE_ALARMS, score_detection
from ecamp.metrics.segmentation import score_segmentation
from ecamp.metrics.surface import hd95


def plain_outline(mask: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask.shape

    def inside(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width and bool(mask[y, x])

    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        if mask[y, x]
        and not all(inside(y + a, x + b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.1, 0.5, 0.9])
)
def test_hd95_equals_all_pairs(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, target = rng.random((2, height, width)) < share
    got = hd95(predicted, target)
    if not target.any():
        assert np.isnan(got)
        return
    if not predicted.any():
        assert got == 100.0
        return
    ours, theirs = plain_outline(predicted), plain_outline(target)

    def far(a: list, b: list) -> float:
        nearest = [min(((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v, u in b) for y, x in a]
        return float(np.percentile(nearest, 95))

    want = max(far(ours, theirs), far(theirs, ours))
    assert got == pytest.approx(100 * want / (height**2 + width**2) ** 0.5)


def test_a_missed_target_counts_and_an_image_without_one_does_not() -> None:
    target = np.zeros((3, 1, 8, 8), bool)
    target[:2, 0, 2:5, 2:5] = True
    predicted = target.copy()
    predicted[1] = False
    predicted[2, 0, 0, 0] = True
    out = score_segmentation(predicted, target, np.ones((1, 3)), classes=["x"])
    assert out["hd95"].value == 50.0
    assert out["fpr_neg"].value == 1.0


def plain_froc(scores: list, hits: list, image: list, true: list, images: list[int]) -> float:
    """Move the threshold over every score; `images` may repeat: a resample."""
    times = np.bincount(images, minlength=max([*image, *true, *images]) + 1)
    total = sum(int(times[i]) for i in true)
    best = []
    for rate in FALSE_ALARMS:
        top = 0.0
        for cut in sorted(set(scores)):
            kept = [k for k, s in enumerate(scores) if s >= cut]
            alarms = sum(int(times[image[k]]) for k in kept if not hits[k])
            found = sum(int(times[image[k]]) for k in kept if hits[k])
            if alarms / len(images) <= rate:
                top = max(top, found / total)
        best.append(top)
    return float(np.mean(best))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_froc_equals_a_moved_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 5
    true_image = np.sort(rng.integers(0, count, rng.integers(1, 7)))
    true_xy = np.array([[40.0 * j, 10, 40.0 * j + 20, 30] for j in range(len(true_image))])
    found = rng.random(len(true_image)) < 0.6
    wrong = rng.integers(0, count, rng.integers(0, 12))
    wrong_xy = np.tile([[0.0, 100, 20, 120]], (len(wrong), 1))
    xyxy = np.concatenate([true_xy[found], wrong_xy])
    image = np.concatenate([true_image[found], wrong])
    scores = rng.permutation(len(image)) / 100  # distinct: a tie has no order of its own
    hits = np.arange(len(image)) < found.sum()
    counts = rng.integers(0, 3, (4, count))
    counts[0] = 1
    counts[:, true_image[0]] += 1
    predicted = Boxes(xyxy, np.zeros(len(image), int), image, scores)
    truth = Boxes(true_xy, np.zeros(len(true_image), int), true_image)
    out = score_detection(predicted, truth, counts, classes=["a"])["froc"]
    plain = [
        plain_froc(
            scores.tolist(), hits.tolist(), image.tolist(), true_image.tolist(),
            np.repeat(np.arange(count), row).tolist(),
        )
        for row in [np.ones(count, int), *counts]
    ]  # fmt: skip
    if not len(image):
        plain = [0.0] * 5
    assert out.value == pytest.approx(plain[0])
    assert out.replicates is not None
    assert out.replicates.tolist() == pytest.approx(plain[1:])
