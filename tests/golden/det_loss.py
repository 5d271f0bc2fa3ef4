"""det_loss.npz: the published YOLOv3 loss, target assignment, decoding and suppression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecamp.published.downstream.yolo import (
    Assignment,
    assign,
    decode,
    published_anchors,
    suppress,
    yolo_loss,
)
from tests.golden.check import (
    EXACT,
    FLOAT32,
    FLOAT32_GRADIENT,
    FLOAT64,
    ROUNDED,
    Check,
    Vectors,
    compare,
)

FILE = "det_loss.npz"
# Runs: type of predictions, type of targets, tolerance of the parts.
RUNS = {
    "f32": (torch.float32, torch.float64, FLOAT32),
    "f32_t32": (torch.float32, torch.float32, FLOAT32),
    "f64": (torch.float64, torch.float64, FLOAT64),
}


def checks(folder: Path) -> Iterator[Check]:
    """Every vector of the file."""
    vectors = Vectors(folder / FILE)
    anchors = vectors.tensor("anchors")
    yield compare(f"{FILE}/anchors", published_anchors(), anchors, EXACT)
    for name in vectors.names():
        case, _, vector = name.partition("/")
        if vector == "targets":
            yield from _case(vectors, case, anchors)
        elif vector == "pred_cxcywh":
            classes = int(vectors[f"{case}/num_classes"][0])
            yield from _suppression(vectors, f"{case}/", vectors.tensor(name), classes)
    yield from vectors.unread()


def _case(vectors: Vectors, case: str, anchors: Tensor) -> Iterator[Check]:
    size, classes = (int(vectors[f"{case}/{name}"][0]) for name in ("img_size", "num_classes"))
    totals: dict[str, np.ndarray] = {}
    for scale in range(len(anchors)):
        prefix = f"{case}/scale{scale}/"
        yield from _assignment(vectors, case, prefix, anchors[scale], size, classes)
        for run in RUNS:
            parts, found = _parts(vectors, case, prefix, run, anchors[scale], size)
            totals[run] = totals.get(run, 0) + parts
            yield from found
        name = f"{prefix}f32/decoded"
        decoded, recorded = (
            decode(vectors.tensor(f"{prefix}pred"), anchors[scale], size),
            vectors[name],
        )
        # Boxes are hundreds of pixels and probabilities at most 1: each on its own scale.
        yield compare(f"{FILE}/{name} boxes", decoded[..., :4], recorded[..., :4], FLOAT32)
        yield compare(f"{FILE}/{name} scores", decoded[..., 4:], recorded[..., 4:], FLOAT32)
    for run in RUNS:
        name = f"{case}/{run}/total_parts"
        if name in vectors:
            yield from _compare_parts(name, totals[run], vectors[name], RUNS[run][2])
    scales = [vectors.tensor(f"{case}/scale{s}/f32/decoded") for s in range(len(anchors))]
    yield from _suppression(vectors, f"{case}/nms_", torch.cat(scales, 1), classes)


def _parts(
    vectors: Vectors, case: str, prefix: str, run: str, anchors: Tensor, size: int
) -> tuple[np.ndarray, list[Check]]:
    """Loss and parts of one scale in one precision, with the gradient of the total."""
    kind, target_kind, tolerance = RUNS[run]
    logits = vectors.tensor(f"{prefix}pred", kind).requires_grad_()
    losses = yolo_loss(logits, vectors.tensor(f"{case}/targets", target_kind), anchors, size)
    parts = np.array([float(value.detach()) for value in losses.values()])
    name, found = f"{prefix}{run}/parts", []
    if name in vectors:
        found += _compare_parts(name, parts, vectors[name], tolerance)
    gradient = f"{prefix}f64r/grad"
    (got,) = torch.autograd.grad(losses["total"], logits)
    exact = kind == torch.float64
    label = f"{FILE}/{gradient}" + ("" if exact else f" ({run})")
    found.append(compare(label, got, vectors[gradient], ROUNDED if exact else FLOAT32_GRADIENT))
    return parts, found


def _compare_parts(
    name: str, got: np.ndarray, recorded: np.ndarray, tolerance: float
) -> list[Check]:
    """x, y, w, h, conf; and apart from them what holds the class loss, float32 in every run."""
    rounded = max(tolerance, ROUNDED)
    return [
        compare(f"{FILE}/{name} boxes", got[1:-1], recorded[1:-1], tolerance),
        compare(f"{FILE}/{name} total, class", got[[0, -1]], recorded[[0, -1]], rounded),
    ]


def _assignment(
    vectors: Vectors, case: str, prefix: str, anchors: Tensor, size: int, classes: int
) -> Iterator[Check]:
    targets = vectors.tensor(f"{case}/targets")
    rows, columns = vectors[f"{prefix}pred"].shape[2:]
    strides = torch.tensor([size / columns, size / rows])
    made: Assignment = assign(targets, anchors / strides, rows, columns, classes)
    cells = made.holds.nonzero()
    where = tuple(cells.T)
    box = torch.cat([made.offset[where], made.size[where]], -1)
    for name, value, tolerance in (
        ("assigned_index_b_a_j_i", cells, EXACT),
        ("assigned_tx_ty_tw_th", box, FLOAT32),
        ("assigned_class_onehot", made.classes[where], EXACT),
        ("noobj_zero_index_b_a_j_i", (made.empty == 0).nonzero(), EXACT),
    ):
        yield compare(f"{FILE}/{prefix}{name}", value, vectors[prefix + name], tolerance)


def _suppression(vectors: Vectors, prefix: str, decoded: Tensor, classes: int) -> Iterator[Check]:
    """Kept boxes at each recorded pair of thresholds, equal to the bit."""
    for name in vectors.names(prefix):
        match = re.fullmatch(r"c([\d.]+)_n([\d.]+)/count", name.removeprefix(prefix))
        if match is None:
            continue
        kept = suppress(decoded, classes, confidence=float(match[1]), overlap_below=float(match[2]))
        counts = np.array([-1 if rows is None else len(rows) for rows in kept])
        yield compare(f"{FILE}/{name}", counts, vectors[name], EXACT)
        boxes = torch.cat([torch.zeros(0, 7), *[rows for rows in kept if rows is not None]])
        name = name.replace("/count", "/boxes")
        yield compare(f"{FILE}/{name}", boxes, vectors[name], EXACT)
