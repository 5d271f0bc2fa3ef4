"""Masks as PNG and boxes as COCO JSON beside prepared images: what other tools read.

Why: docs/decisions.md#masks-and-coco-boxes-are-an-export.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from PIL import Image

from ecamp.api.dataset import Dataset, DatasetInfo, Record
from ecamp.errors import DataError
from ecamp.io.folders import resolve_below_root
from ecamp.storage.files import (
    append_lines,
    atomic_path,
    content_hash,
    repair_and_read_lines,
    write_if_changed,
    write_lines,
)

TRUTH, BOXES, MASKS = "truth.jsonl", "boxes.json", "masks"
CHUNK = 32


@dataclass(frozen=True)
class Truth:
    """A line of `truth.jsonl`: one image, and what was written of it.

    Attributes:
        of: Fingerprint of the data set that it was made from.
        boxes: x, y, width, height in pixels of the image, and the number of the class; None = not known.
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
class Written:
    """What a run did."""

    masks: int
    boxes: int
    made: int
    bad: tuple[str, ...]


def write_ground_truth(
    dataset: Dataset, out: Path, *, workers: int = 1, verify: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:  # fmt: skip
    """Write `masks/ID.png` (0 and 255; of several classes `masks/CLASS/ID.png`) and `boxes.json`.

    Each image has one of each where its truth is known, empty ones too. The same call goes on after an
    interruption; a second one changes nothing.

    Args:
        verify: Compare masks that are there with their checksums; wrong ones are made again.
    """
    facts, of = dataset.info, dataset.fingerprint()
    wanted = {r.id: r for r in dataset.records() if r.has_mask or r.has_boxes}
    journal = out / TRUTH
    out.mkdir(parents=True, exist_ok=True)
    fine = {
        one.id: one for one in (repair_and_read_lines(journal, Truth) if wanted else ())
        if one.of == of and one.id in wanted and _is_there(out, one, verify)
    }  # fmt: skip
    todo = [record for name, record in wanted.items() if name not in fine]
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    done, bad = dict(fine), []
    jobs = (delayed(_write)(dataset, facts, of, out, chunk) for chunk in chunks)
    for results in Parallel(n_jobs=workers, return_as="generator")(jobs):
        made = [result for result in results if isinstance(result, Truth)]
        done |= {one.id: one for one in made}
        bad += [result for result in results if isinstance(result, str)]
        append_lines(journal, map(asdict, made))
        progress(len(done) + len(bad), len(wanted))
    ordered = [done[name] for name in sorted(done)]
    if ordered:
        write_lines(journal, ordered)
    boxes = [one for one in ordered if one.boxes is not None]
    if boxes:
        text = json.dumps(_coco(boxes, facts), indent=1)
        write_if_changed(out / BOXES, (text + "\n").encode())
    return Written(
        sum(len(one.masks) for one in ordered), sum(len(one.boxes or ()) for one in boxes),
        len(done) - len(fine), tuple(bad),
    )  # fmt: skip


def _is_there(out: Path, one: Truth, verify: bool) -> bool:
    paths = {out / path: digest for path, digest in one.masks.items()}
    if not all(path.is_file() for path in paths):
        return False
    return not verify or all(content_hash(path) == digest for path, digest in paths.items())


def _write(
    dataset: Dataset, facts: DatasetInfo, of: str, out: Path, records: Sequence[Record]
) -> list[Truth | str]:
    results: list[Truth | str] = []
    for record in records:
        try:
            sample = dataset.load(record, 1024)
        except DataError as error:
            results.append(error.message)
            continue
        height, width = sample.image.shape[:2]
        masks = {}
        for k, name in enumerate(facts.mask_classes if sample.mask is not None else ()):
            folder = f"{MASKS}/{name}" if len(facts.mask_classes) > 1 else MASKS
            path = resolve_below_root(out, f"{folder}/{record.id}.png", record.row)
            assert sample.mask is not None
            with atomic_path(out / path) as temporary:
                Image.fromarray(sample.mask[k].astype("uint8") * 255).save(temporary, "PNG")
            masks[path] = content_hash(out / path)
        boxes = None
        if sample.boxes is not None and sample.box_classes is not None:
            boxes = [
                [float(x1), float(y1), float(x2 - x1), float(y2 - y1), int(kind)]
                for (x1, y1, x2, y2), kind in zip(sample.boxes, sample.box_classes, strict=True)
            ]
        image = getattr(record.payload, "path", record.id)
        results.append(Truth(of, record.id, str(image), width, height, boxes, masks))
    return results


def _coco(truths: Sequence[Truth], facts: DatasetInfo) -> dict[str, Any]:
    images = [
        {"id": n, "file_name": one.image, "width": one.width, "height": one.height}
        for n, one in enumerate(truths, 1)
    ]
    pairs = [(n, box) for n, one in enumerate(truths, 1) for box in one.boxes or ()]
    return {
        "images": images,
        "annotations": [
            {
                "id": k, "image_id": n, "category_id": int(kind) + 1, "bbox": [x, y, width, height],
                "area": width * height, "iscrowd": 0,
            }
            for k, (n, (x, y, width, height, kind)) in enumerate(pairs, 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(facts.box_classes, 1)],
    }  # fmt: skip
