"""The audit of a data set plugin: its lists, then (unless switched off) its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecamp.api.dataset import Dataset, Record, Sample
from ecamp.audit.fingerprints import Fingerprint, PrintStore, fingerprint
from ecamp.audit.images import audit_images
from ecamp.audit.splits import AuditContext, Finding, Item, SplitList, audit_lists
from ecamp.data.arrays import check_sample
from ecamp.storage.files import cache_root

SIZE = 224  # what a procedural data set renders at
PRINTS = 2  # form of the fingerprints that are kept


def listings_of(records: list[Record]) -> list[SplitList]:
    """Records as lists, one a split."""
    by_split: dict[str, list[Item]] = defaultdict(list)
    for record in records:
        by_split[record.split].append(
            Item(record.id, record.patient, record.labels, None, record.row)
        )
    return [SplitList(split, tuple(items)) for split, items in by_split.items()]


def audit_dataset(
    dataset: Dataset, *, images: bool = True, cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:  # fmt: skip
    """Everything that the lists and the images show.

    Args:
        images: Read every image once; fingerprints are kept in the cache, so that an interrupted
            audit goes on.
    """
    records, info = list(dataset.records()), dataset.info
    facts = AuditContext(info.labels, info.label_kind == "multiclass")
    found = audit_lists(listings_of(records), facts)
    if not images:
        return found
    key = dataset.fingerprint()
    store = PrintStore(cache_root(cache) / "audit" / f"{key}-{PRINTS}.jsonl")
    prints = store.of(
        [record.id for record in records],
        lambda i: _print_of(check_sample(dataset, records[i], SIZE)),
        progress,
    )
    labels = np.array(
        [
            [np.nan if v is None else v for v in (record.labels or (None,) * len(info.labels))]
            for record in records
        ],
        float,
    ).reshape(len(records), -1)
    found += audit_images(
        [record.id for record in records],
        [record.split for record in records],
        [record.patient for record in records],
        labels,
        info.labels,
        prints,
        [str(getattr(record.payload, "path", record.id)) for record in records],
    )
    order = {"leak": 0, "error": 1, "note": 2}
    return sorted(found, key=lambda f: order[f.severity])


def _print_of(sample: Sample) -> Fingerprint:
    boxes = np.zeros((0, 4)) if sample.boxes is None else sample.boxes
    kinds = np.zeros(len(boxes)) if sample.box_classes is None else sample.box_classes
    rows = {(*box, kind) for box, kind in zip(boxes.tolist(), kinds.tolist(), strict=True)}
    return replace(fingerprint(sample.image), boxes_twice=len(boxes) - len(rows))
