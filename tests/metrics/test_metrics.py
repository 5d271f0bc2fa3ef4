"""Metrics against independent oracles: scikit-learn, pycocotools' own summary, plain loops."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from ecamp.metrics.classification import best_thresholds, score_classification
from ecamp.metrics.detection import Boxes, score_detection
from ecamp.metrics.segmentation import score_segmentation
from ecamp.metrics.stats import resample_counts


def test_resamples_go_by_patient_and_depend_on_the_patients_alone():
    patients = ["a", "b", "a", "c"]
    counts = resample_counts(patients, 50)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts.sum(1) != 4).any(), "clusters of unequal size change the number of images"
    again = resample_counts(["c", "a", "b"], 50)
    assert (again[:, [1, 2, 1, 0]] == counts).all()


def test_one_kind_of_target_is_undefined_with_a_reason_and_leaves_the_macro():
    scores = np.array([[0.1, 0.2], [0.9, 0.3], [0.4, 0.1]])
    targets = np.array([[0, 0], [1, 0], [0, 0]], float)
    out = score_classification(
        scores, targets, np.ones((3, 3)), classes=["x", "y"], kind="multilabel",
        thresholds=np.array([0.5, 0.5]),
    )  # fmt: skip
    assert out["auroc/y"].value is None
    assert "'y'" in out["auroc/y"].reason
    assert out["auroc"].value == 1.0
    assert "y" in out["auroc"].reason


def test_unknown_labels_are_left_out():
    scores = np.array([[0.1], [0.9], [0.4], [0.2]])
    targets = np.array([[0], [1], [np.nan], [1]])
    out = score_classification(
        scores, targets, np.ones((2, 4)), classes=["x"], kind="multilabel",
        thresholds=np.array([0.5]),
    )  # fmt: skip
    assert out["auroc"].value == roc_auc_score([0, 1, 1], [0.1, 0.9, 0.2])
    assert out["accuracy"].value == pytest.approx(2 / 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_best_threshold_beats_every_other_cut(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, (30, 1)) / 8
    targets = (rng.random((30, 1)) < 0.4).astype(float)
    if targets.min() == targets.max():
        return
    cut = best_thresholds(scores, targets)[0]
    best = max(f1_score(targets[:, 0], scores[:, 0] >= c) for c in np.unique(scores))
    assert f1_score(targets[:, 0], scores[:, 0] >= cut) == pytest.approx(best)


def test_all_empty_prediction_shows_the_published_floor():
    """docs/published-flaws.md#f4: 4,086 of 5,337 RSNA test images have no box, so all-empty scores 76.56."""
    target = np.zeros((5337, 1, 2, 2), bool)
    target[: 5337 - 4086, 0, 0, 0] = True
    out = score_segmentation(np.zeros_like(target), target, np.ones((1, 5337)), classes=["x"])
    assert round(100 * out["legacy_dice"].value, 2) == 76.56
    assert out["dice_pos"].value == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_dice_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    predicted, target = rng.random((2, 6, 1, 4, 4)) < 0.15
    out = score_segmentation(predicted, target, np.ones((1, 6)), classes=["x"])
    legacy, positive = [], []
    for p, t in zip(predicted[:, 0], target[:, 0], strict=True):
        sizes = int(p.sum()) + int(t.sum())
        dice = 1.0 if sizes == 0 else 2 * int((p & t).sum()) / sizes
        legacy.append(dice)
        positive += [dice] if t.any() else []
    assert out["legacy_dice"].value == pytest.approx(np.mean(legacy))
    if positive:
        assert out["dice_pos"].value == pytest.approx(np.mean(positive))
    else:
        assert out["dice_pos"].value is None


def random_boxes(rng, images, per_image, classes, scored):
    n = rng.integers(0, per_image + 1, images)
    image = np.repeat(np.arange(images), n)
    corner = rng.random((len(image), 2)) * 40
    size = 4 + rng.random((len(image), 2)) * 20
    xyxy = np.concatenate([corner, corner + size], 1)
    labels = rng.integers(0, classes, len(image))
    scores = np.round(rng.random(len(image)), 1) if scored else None
    return Boxes(xyxy, labels, image, scores)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_map_equals_pycocotools_own_summary(seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    truth = random_boxes(rng, 8, 3, 2, False)
    near = truth.xyxy + rng.normal(0, 1.5, (len(truth.xyxy), 2))[:, [0, 1, 0, 1]]  # a shift
    noise = random_boxes(rng, 8, 3, 2, True)
    predicted = Boxes(
        np.concatenate([near, noise.xyxy]),
        np.concatenate([truth.labels, noise.labels]),
        np.concatenate([truth.image, noise.image]),
        np.round(rng.random(len(near) + len(noise.xyxy)), 2),
    )
    if not len(truth.xyxy) or not len(predicted.xyxy):
        return
    out = score_detection(predicted, truth, np.ones((2, 8)), classes=["a", "b"])

    def rows(boxes):
        for i, box in enumerate(boxes.xyxy):
            x1, y1, x2, y2 = map(float, box)
            yield {
                "id": i + 1, "image_id": int(boxes.image[i]), "category_id": int(boxes.labels[i]),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
            } | ({} if boxes.scores is None else {"score": float(boxes.scores[i])})  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "info": {}, "images": [{"id": i} for i in range(8)],
            "categories": [{"id": 0}, {"id": 1}], "annotations": list(rows(truth)),
        }  # fmt: skip
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(list(rows(predicted))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert out["map_50_95"].value == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert out["ap50"].value == pytest.approx(evaluation.stats[1], abs=1e-9)
    assert out["map_50_95"].replicates == pytest.approx(out["map_50_95"].value)


def test_a_resample_equals_the_metric_on_repeated_images():
    rng = np.random.default_rng(3)
    truth = random_boxes(rng, 6, 3, 1, False)
    predicted = Boxes(truth.xyxy + 1.5, truth.labels, truth.image, rng.random(len(truth.xyxy)))
    counts = np.array([[2, 0, 1, 1, 0, 2]], float)

    def repeat(boxes):
        where = [
            np.flatnonzero(boxes.image == i) for i in np.repeat(np.arange(6), counts[0].astype(int))
        ]
        image = np.repeat(np.arange(len(where)), [len(w) for w in where])
        flat = np.concatenate(where)
        scores = None if boxes.scores is None else boxes.scores[flat]
        return Boxes(boxes.xyxy[flat], boxes.labels[flat], image, scores)

    weighted = score_detection(predicted, truth, counts, classes=["a"])["map_40_75"].replicates[0]
    plain = score_detection(repeat(predicted), repeat(truth), np.ones((1, 6)), classes=["a"])
    # Repeated images hold equal scores; precision between them differs only inside a tie.
    assert weighted == pytest.approx(plain["map_40_75"].value, abs=0.02)


def test_no_prediction_scores_zero_and_no_truth_is_undefined():
    empty = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    truth = Boxes(np.array([[1.0, 1, 5, 5]]), np.array([0]), np.array([1]))
    out = score_detection(empty, truth, np.ones((1, 3)), classes=["a"])
    assert out["map_40_75"].value == 0.0
    none = score_detection(
        empty, Boxes(empty.xyxy, empty.labels, empty.image), np.ones((1, 3)), classes=["a"]
    )
    assert none["map_40_75"].value is None
    assert "'a'" in none["map_40_75"].reason
