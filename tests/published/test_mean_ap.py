"""mAP with dropped images and the three recall-grid rules, against pycocotools and by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ecamp.metrics.detection import Boxes, score_detection
from ecamp.published.downstream.mean_ap import (
    IOU,
    RULES,
    keep_both,
    published_map,
    published_map_metric,
    summarise,
)


def draw(seed: int) -> tuple[Boxes, Boxes]:
    """Boxes of two classes in all of COCO's sizes; jittered truth and false alarms as predictions."""
    rng = np.random.default_rng(seed)

    def boxes(image: int) -> np.ndarray:
        count = rng.integers(0, 4)
        centre = rng.uniform(20, 200, (count, 2))
        side = rng.choice([18, 50, 130], (count, 1)) * rng.uniform(0.7, 1.3, (count, 2))
        label = rng.integers(0, 2, (count, 1))
        return np.column_stack([np.full(count, image), centre - side / 2, centre + side / 2, label])

    true = np.concatenate([boxes(i) for i in range(20)])
    near = true[rng.random(len(true)) < 0.7]
    near[:, 1:5] += rng.normal(0, 3, (len(near), 4))
    found = np.concatenate([near, *[boxes(i) for i in range(20)]])
    found = found[(found[:, 3] > found[:, 1]) & (found[:, 4] > found[:, 2])]

    def of(rows: np.ndarray, scores: np.ndarray | None) -> Boxes:
        return Boxes(rows[:, 1:5], rows[:, 5].astype(int), rows[:, 0].astype(int), scores)

    return of(found, rng.random(len(found))), of(true, None)


def coco(predicted: Boxes, truth: Boxes, recall: np.ndarray) -> dict[str, float]:
    """pycocotools' own summary."""

    def rows(boxes: Boxes) -> list[dict]:
        return [
            {
                "id": i + 1, "image_id": int(boxes.image[i]), "category_id": int(boxes.labels[i]),
                "bbox": [*box[:2], *(box[2:] - box[:2])], "area": float((box[2:] - box[:2]).prod()),
                "iscrowd": 0, "score": 0.0 if boxes.scores is None else float(boxes.scores[i]),
            }
            for i, box in enumerate(boxes.xyxy)
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "info": {}, "images": [{"id": i} for i in range(20)],
            "categories": [{"id": 0}, {"id": 1}], "annotations": rows(truth),
        }  # fmt: skip
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(rows(predicted)), "bbox")
        evaluation.params.iouThrs, evaluation.params.recThrs = IOU, recall
        evaluation.evaluate()
        evaluation.accumulate()
    precision, last = evaluation.eval["precision"], evaluation.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    areas = {"small": 1, "medium": 2, "large": 3}
    return {
        "map": mean(precision[..., 0, 2]),
        "map_75": mean(precision[-1, ..., 0, 2]),
        **{f"map_{name}": mean(precision[..., a, 2]) for name, a in areas.items()},
        **{f"mar_{name}": mean(last[..., a, 2]) for name, a in areas.items()},
        **{f"mar_{limit}": mean(last[..., 0, m]) for m, limit in enumerate((1, 10, 100))},
    }


@pytest.mark.parametrize("seed", range(6))
def test_two_rules_are_pycocotools_with_its_own_and_with_torchs_grid(seed: int) -> None:
    predicted, truth = draw(seed)
    grids = {
        "pycocotools": np.linspace(0, 1, 101),
        "torchmetrics-1.9": torch.linspace(0, 1, 101).double().numpy(),
    }
    for rule, grid in grids.items():
        got = summarise(predicted, truth, rule=rule)
        for name, value in coco(predicted, truth, grid).items():
            assert got[name] == pytest.approx(value, abs=1e-12), (rule, name)


def test_the_float32_grid_is_torchs() -> None:
    grid = RULES["torchmetrics-0.7"].grid
    assert np.array_equal(grid, torch.linspace(0, 1, 101).numpy())


def test_images_that_cost_points_are_left_out() -> None:
    """One box found exactly; a missed box and a false alarm on other images cost nothing."""
    box = np.array([[10.0, 10, 60, 60]])
    predicted = Boxes(
        np.repeat(box, 2, 0), np.zeros(2, int), np.array([0, 2]), np.array([0.8, 0.9])
    )
    truth = Boxes(np.repeat(box, 2, 0), np.zeros(2, int), np.array([0, 1]))
    assert published_map(predicted, truth) == pytest.approx(1.0)
    assert summarise(predicted, truth, rule="pycocotools")["map"] == pytest.approx(0.5 * 51 / 101)
    assert {len(part.image) for part in keep_both(predicted, truth)} == {1}


def test_no_kept_image_is_minus_one() -> None:
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    truth = Boxes(np.array([[1.0, 1, 9, 9]]), np.zeros(1, int), np.zeros(1, int))
    assert published_map(nothing, truth) == -1.0
    assert summarise(nothing, truth, rule="pycocotools")["map"] == 0.0


def test_the_rules_disagree_where_recall_meets_a_grid_point() -> None:
    """28 of 100 boxes found: the point 0.28 is reached on one grid and not on the other."""
    box = np.array([[10.0, 10, 60, 60]])
    predicted = Boxes(np.repeat(box, 28, 0), np.zeros(28, int), np.arange(28), np.ones(28))
    truth = Boxes(np.repeat(box, 100, 0), np.zeros(100, int), np.arange(100))
    reached = {
        rule: round(101 * summarise(predicted, truth, rule=rule)["map"])
        for rule in ("pycocotools", "torchmetrics-1.9")
    }
    expected = {rule: int((RULES[rule].grid <= 28 / 100).sum()) for rule in reached}
    assert reached == expected
    assert len(set(reached.values())) == 2


def test_a_detector_that_finds_a_tenth_looks_well_by_the_published_map() -> None:
    """docs/published-flaws.md#f1: 1,251 images with one box, 10 % found well, 4,086 without."""
    rng = np.random.default_rng(0)
    images, positive = 5337, 1251
    corner = rng.uniform(0, 100, (positive, 2))
    xyxy = np.concatenate([corner, corner + 60], 1)
    truth = Boxes(xyxy, np.zeros(positive, int), np.arange(positive))
    found = np.flatnonzero(rng.random(positive) < 0.10)
    shift = rng.uniform(0, 14, (len(found), 1))  # loose boxes: some IoU thresholds fail
    alarms = rng.choice(np.arange(positive, images), 300, replace=False)
    predicted = Boxes(
        np.concatenate([xyxy[found] + shift, np.tile([[10.0, 10, 70, 70]], (len(alarms), 1))]),
        np.zeros(len(found) + len(alarms), int),
        np.concatenate([found, alarms]),
        rng.uniform(0.5, 1.0, len(found) + len(alarms)),
    )
    out = score_detection(predicted, truth, np.ones((1, images)), classes=["opacity"])
    published = published_map_metric(predicted, truth)
    honest, biased = out["map_40_75"].value, published.value
    assert honest is not None
    assert biased is not None
    assert honest < 0.1
    assert biased > 5 * honest
    assert f"{len(found)} images" in published.reason


def test_the_published_map_without_a_sure_prediction_is_undefined() -> None:
    truth = Boxes(np.array([[1.0, 1, 5, 5]]), np.array([0]), np.array([1]))
    weak = Boxes(truth.xyxy, truth.labels, truth.image, np.array([0.49]))
    out = score_detection(weak, truth, np.ones((1, 3)), classes=["a"])
    assert published_map_metric(weak, truth).value is None
    assert out["map_40_75"].value == 1.0
