"""Masks as PNG and boxes as COCO JSON next to prepared images, for other tools.

Why: docs/decisions.md#masks-and-coco-boxes-are-an-export.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ecamp.api.dataset import Dataset, DatasetInfo, Record
from ecamp.data.decoding import load_sample
from ecamp.errors import DataError
from ecamp.export.journal import run_resumable
from ecamp.io.folders import resolve_below_root
from ecamp.progress import Progress, no_progress
from ecamp.storage.files import atomic_path, content_hash, write_if_changed

TRUTH, BOXES, MASKS = "truth.jsonl", "boxes.json", "masks"


@dataclass(frozen=True)
class ImageTruth:
    """One line of `truth.jsonl`: the truth of an image as written.

    Attributes:
        of: Fingerprint of the data set that it comes from.
        id: Of the record.
        image: Path of the image, or the id.
        width, height: Of the image in pixels.
        boxes: x, y, width, height in pixels of the image, and the index of the class; None = not
            known.
        masks: Path below the output -> its checksum.
    """

    of: str
    id: str
    image: str
    width: int
    height: int
    boxes: list[list[float]] | None
    masks: dict[str, str]


@dataclass(frozen=True)
class TruthSummary:
    """Outcome of a run.

    Attributes:
        masks: Mask files in the output.
        boxes: Boxes in the output.
        new: Images whose truth this run wrote.
        bad: Messages of images that could not be read.
    """

    masks: int
    boxes: int
    new: int
    bad: tuple[str, ...]


def write_ground_truth(
    dataset: Dataset, out: Path, *, workers: int = 1, verify: bool = False,
    progress: Progress = no_progress,
) -> TruthSummary:  # fmt: skip
    """Write `masks/ID.png` (0 and 255; with several classes `masks/CLASS/ID.png`) and `boxes.json`.

    Every image whose truth is known gets one, empty ones too. The same call resumes after an
    interruption; a second one changes nothing.

    Args:
        out: Folder to write.
        workers: Processes.
        verify: Compare existing masks with their checksums; wrong ones are written again.
        progress: Receives images as their truth is written.
    """
    info, fingerprint = dataset.info, dataset.fingerprint()
    records = {r.id: r for r in dataset.records() if r.has_mask or r.has_boxes}
    out.mkdir(parents=True, exist_ok=True)
    outcome = run_resumable(
        records, partial(_write, dataset, info.mask_classes, fingerprint, out), out / TRUTH, ImageTruth,
        key=lambda row: row.id,
        is_done=lambda row: row.of == fingerprint and _is_intact(out, row, verify),
        workers=workers, progress=progress, counted="images with truth",
    )  # fmt: skip
    with_boxes = [row for row in outcome.rows if row.boxes is not None]
    if with_boxes:
        text = json.dumps(_coco(with_boxes, info), indent=1)
        write_if_changed(out / BOXES, (text + "\n").encode())
    return TruthSummary(
        sum(len(row.masks) for row in outcome.rows), sum(len(row.boxes or ()) for row in with_boxes),
        outcome.new, outcome.bad,
    )  # fmt: skip


def _is_intact(out: Path, row: ImageTruth, verify: bool) -> bool:
    paths = {out / path: digest for path, digest in row.masks.items()}
    if not all(path.is_file() for path in paths):
        return False
    return not verify or all(content_hash(path) == digest for path, digest in paths.items())


def _write(
    dataset: Dataset, classes: Sequence[str], fingerprint: str, out: Path, records: Sequence[Record]
) -> list[ImageTruth | str]:
    results: list[ImageTruth | str] = []
    for record in records:
        try:
            sample = load_sample(dataset, record, 1024)
        except DataError as error:
            results.append(error.message)
            continue
        height, width = sample.image.shape[:2]
        masks = {}
        for k, name in enumerate(classes if sample.mask is not None else ()):
            folder = f"{MASKS}/{name}" if len(classes) > 1 else MASKS
            path = resolve_below_root(out, f"{folder}/{record.id}.png", record.row)
            assert sample.mask is not None
            with atomic_path(out / path) as temporary:
                Image.fromarray(sample.mask[k].astype("uint8") * 255).save(temporary, "PNG")
            masks[path] = content_hash(out / path)
        boxes = None
        if sample.boxes is not None and sample.box_classes is not None:
            boxes = [
                [float(x1), float(y1), float(x2 - x1), float(y2 - y1), int(class_id)]
                for (x1, y1, x2, y2), class_id in zip(sample.boxes, sample.box_classes, strict=True)
            ]
        image = getattr(record.payload, "path", record.id)
        results.append(ImageTruth(fingerprint, record.id, str(image), width, height, boxes, masks))
    return results


def _coco(truths: Sequence[ImageTruth], info: DatasetInfo) -> dict[str, Any]:
    images = [
        {"id": n, "file_name": truth.image, "width": truth.width, "height": truth.height}
        for n, truth in enumerate(truths, 1)
    ]
    boxes = [(n, box) for n, truth in enumerate(truths, 1) for box in truth.boxes or ()]
    return {
        "images": images,
        "annotations": [
            {
                "id": k, "image_id": n, "category_id": int(class_id) + 1,
                "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0,
            }
            for k, (n, (x, y, width, height, class_id)) in enumerate(boxes, 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(info.box_classes, 1)],
    }  # fmt: skip
