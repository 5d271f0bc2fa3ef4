"""Published downstream arithmetic against torchvision, plain Python and hand-worked cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.ops import nms, sigmoid_focal_loss

from ecamp.errors import DataError
from ecamp.published.downstream import classification, schedules, segmentation, vit, yolo
from ecamp.published.downstream.detection import Detector
from ecamp.published.downstream.vit import ViTShape

TINY = ViTShape(image_size=64, patch_size=16, width=32, depth=2, heads=2)


def test_focal_loss_is_torchvisions_on_hard_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 9, 7, generator=generator) * 4
    target = (torch.rand(2, 9, 7, generator=generator) > 0.5).float()
    ours = segmentation.focal_loss(logits, target, gamma=2.0)
    theirs = sigmoid_focal_loss(logits, target, alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_get_dice_counts_empty_on_empty_as_one_and_sorts_positives_first() -> None:
    truth = torch.zeros(3, 2, 2)
    truth[2, 0, 0] = 1
    assert segmentation.get_dice(torch.zeros(3, 2, 2), truth).flatten().tolist() == [0, 1, 1]


def test_a_perfect_mask_has_half_of_the_published_dice_loss() -> None:
    mask = torch.ones(1, 100, 100)
    assert float(segmentation.dice_loss(mask, mask)) == pytest.approx(0.5, abs=1e-4)


def test_the_published_cosine_rises_after_its_end() -> None:
    rates = [schedules.warmup_cosine(step, warmup=2, total=10) for step in range(16)]
    assert rates[0] == 0
    assert rates[2] == 1
    assert rates[10] == pytest.approx(0)
    assert rates[15] > 0.5


def assign_plainly(targets: list, anchors: list, side: int) -> dict:
    """Which (image, anchor, row, column) holds which classes, and where no-object is off."""
    holds: dict = {}
    off = set()
    for b, boxes in enumerate(targets):
        for kind, x, y, w, h in boxes:
            if kind + x + y + w + h == 0:
                continue
            cell = (int(y * side), int(x * side))
            ious = []
            for aw, ah in anchors:
                shared = (min(w * side, aw) + 1) * (min(h * side, ah) + 1)
                union = (w * side + 1) * (h * side + 1) + (aw + 1) * (ah + 1) - shared
                ious.append(shared / union)
            for a, value in enumerate(ious):
                if value > 0.5:
                    off.add((b, a, *cell))
            holds.setdefault((b, ious.index(max(ious)), *cell), set()).add(int(kind))
    return {"holds": holds, "off": off}


def test_assignment_of_two_classes() -> None:
    draw = np.random.default_rng(1)
    targets = np.zeros((4, 10, 5))
    for boxes in targets:
        for row in boxes[: draw.integers(0, 9)]:
            row[:] = [draw.integers(0, 2), *draw.uniform(0.1, 0.9, 2), *draw.uniform(0.05, 0.6, 2)]
    targets[0, 0], targets[0, 1] = [0, 0.5, 0.5, 0.3, 0.3], [1, 0.52, 0.52, 0.3, 0.3]
    anchors = [(1.0, 1.5), (2.0, 1.0), (3.0, 4.0)]
    made = yolo.assign(torch.tensor(targets), torch.tensor(anchors), 7, 7, 2)
    expected = assign_plainly(targets.tolist(), anchors, 7)
    assert {tuple(i) for i in made.holds.nonzero().tolist()} == set(expected["holds"])
    assert {tuple(i) for i in (made.empty == 0).nonzero().tolist()} == expected["off"]
    for where, kinds in expected["holds"].items():
        assert set(made.classes[where].nonzero().flatten().tolist()) == kinds
    assert any(len(kinds) == 2 for kinds in expected["holds"].values())


def test_a_decoded_box_comes_back_from_its_own_target() -> None:
    anchors = yolo.published_anchors()[0]
    target = torch.tensor([[[0, 0.4, 0.6, 0.5, 0.3]]], dtype=torch.float64)
    made = yolo.assign(target, anchors / 32, 7, 7, 1)
    (where,) = made.holds.nonzero().tolist()
    logits = torch.zeros(1, 3, 6, 7, 7)
    b, a, j, i = where
    logits[b, a, :2, j, i] = torch.logit(made.offset[b, a, j, i])
    logits[b, a, 2:4, j, i] = made.size[b, a, j, i]
    logits[b, a, 4, j, i] = 9.0
    box = yolo.decode(logits.flatten(1, 2), anchors, 224)
    best = box[0, box[0, :, 4].argmax()]
    assert best[:4].tolist() == pytest.approx([0.4 * 224, 0.6 * 224, 112, 67.2], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_torchvisions_on_boxes_one_pixel_larger(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decoded = torch.rand(2, 80, 7, generator=generator)
    decoded[..., :2] = decoded[..., :2] * 60 + 20
    decoded[..., 2:4] = decoded[..., 2:4] * 40 + 5
    before = decoded.clone()
    kept = yolo.suppress(decoded, 2, confidence=0.3, overlap_below=0.4)
    assert torch.equal(decoded, before)
    for image, rows in zip(decoded, kept, strict=True):
        assert rows is not None
        image = image[image[:, 4] >= 0.3]
        half = image[:, 2:4] / 2
        corners = torch.cat([image[:, :2] - half, image[:, :2] + half], 1)
        kinds, expected = image[:, 5:].argmax(1), []
        for k in (0, 1):
            mine = (kinds == k).nonzero().flatten()
            larger = corners[mine] + torch.tensor([0.0, 0, 1, 1])
            expected.append(corners[mine[nms(larger, image[mine, 4], 0.4)]])
        torch.testing.assert_close(rows[:, :4], torch.cat(expected))


def test_no_box_over_the_threshold_is_none() -> None:
    assert yolo.suppress(torch.zeros(2, 5, 6), 1) == [None, None]


def test_loss_of_one_cell_by_hand() -> None:
    """All logits 0, one box that fills the only cell: each part is a known number."""
    anchors = torch.tensor([[32.0, 32.0]])
    target = torch.tensor([[[0.0, 0.25, 0.5, 1.0, 1.0]]], dtype=torch.float64)
    got = yolo.yolo_loss(torch.zeros(1, 6, 1, 1), target, anchors, 32)
    assert float(got["x"]) == pytest.approx(math.log(2))
    assert float(got["w"]) == pytest.approx(0)
    assert float(got["conf"]) == pytest.approx(math.log(2))  # IoU 1 > 0.5: no no-object loss
    assert float(got["total"]) == pytest.approx((2.5 * 2 + 1 + 1) * math.log(2))


@pytest.mark.parametrize("build", [segmentation.SegViT, segmentation.seg_vit_riga, Detector])
def test_dense_models_train_all_but_their_vit(build: type) -> None:
    model = build(TINY)
    donor = vit.build_vit(TINY)
    state = {**donor.state_dict(), "norm.weight": torch.ones(32), "mask_token": torch.ones(1)}
    start = vit.start_dense(model, state)
    assert len(start.loaded) == len(donor.state_dict())
    assert start.unexpected == []
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("encoder.")}
    model.eval()
    shapes = [tuple(out.shape) for out in model(torch.rand(2, 3, 64, 64))]
    if build is Detector:
        assert shapes == [(2, 18, 2, 2), (2, 18, 4, 4), (2, 18, 8, 8)]
    else:
        assert set(shapes) == {(2, 1, 64, 64)}


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(DataError, match=r"encoder.cls_token: checkpoint \(1, 1, 48\)"):
        vit.start_dense(segmentation.SegViT(TINY), {"cls_token": torch.zeros(1, 1, 48)})


def test_the_linear_probe_trains_the_head_only() -> None:
    model = classification.classifier(3, TINY)
    start = classification.start_classifier(
        model, {"norm.bias": torch.zeros(32)}, linear_probe=True
    )
    assert start.unexpected == ["norm.bias"]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    assert float(model.get_parameter("head.weight").detach().abs().max()) < 1e-4


def test_valid_averages_the_loss_over_batches_whatever_their_size() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    labels = torch.tensor([[0.0], [1.0], [0.0]])
    got = classification.valid(logits, labels, [2, 1])
    last = -math.log(math.exp(9) / (math.exp(9) + 2))
    assert got.loss == pytest.approx((math.log(3) + last) / 2)
    assert got.result == pytest.approx(2 / 3)
