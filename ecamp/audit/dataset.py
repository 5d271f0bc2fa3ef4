"""Audit of a data set plugin: its splits, then (unless disabled) its images."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecamp.api.dataset import Dataset, Record, Sample
from ecamp.audit.fingerprints import Fingerprint, FingerprintStore, fingerprint
from ecamp.audit.images import audit_images
from ecamp.audit.splits import AuditContext, AuditItem, Finding, SplitList, audit_lists, by_severity
from ecamp.config import identity
from ecamp.data.decoding import check_sample
from ecamp.progress import Progress, no_progress
from ecamp.storage.files import cache_root

SIZE = 224  # side at which a procedural data set renders
PRINTS = 2  # version of the stored fingerprints


def group_by_split(records: list[Record]) -> list[SplitList]:
    """Group records into one list per split."""
    by_split: dict[str, list[AuditItem]] = defaultdict(list)
    for record in records:
        by_split[record.split].append(
            AuditItem(record.id, record.patient, record.labels, None, record.row)
        )
    return [SplitList(split, tuple(items)) for split, items in by_split.items()]


def audit_dataset(
    dataset: Dataset, *, images: bool = True, cache: Path | None = None,
    progress: Progress = no_progress,
) -> list[Finding]:  # fmt: skip
    """Check the splits and the images of a data set.

    Args:
        images: Read every image once; fingerprints are kept in the cache, so that an interrupted
            audit resumes.
        cache: Cache folder; default as `cache_root`.
        progress: Receives images as they are read.

    Returns:
        Findings, leaks first.
    """
    records, info = list(dataset.records()), dataset.info
    context = AuditContext(info.labels, info.label_kind == "multiclass")
    findings = audit_lists(group_by_split(records), context)
    if not images:
        return findings
    key = identity(dataset.identity)
    store = FingerprintStore(cache_root(cache) / "audit" / f"{key}-{PRINTS}.jsonl")
    prints = store.compute(
        [record.id for record in records],
        lambda i: _fingerprint(check_sample(dataset, records[i], SIZE)),
        progress,
    )
    labels = np.array(
        [
            [np.nan if v is None else v for v in (record.labels or (None,) * len(info.labels))]
            for record in records
        ],
        float,
    ).reshape(len(records), -1)
    findings += audit_images(
        [record.id for record in records],
        [record.split for record in records],
        [record.patient for record in records],
        labels,
        info.labels,
        prints,
        [str(getattr(record.payload, "path", record.id)) for record in records],
    )
    return by_severity(findings)


def _fingerprint(sample: Sample) -> Fingerprint:
    boxes = np.zeros((0, 4)) if sample.boxes is None else sample.boxes
    classes = np.zeros(len(boxes)) if sample.box_classes is None else sample.box_classes
    distinct = {(*box, k) for box, k in zip(boxes.tolist(), classes.tolist(), strict=True)}
    return replace(fingerprint(sample.image), boxes_twice=len(boxes) - len(distinct))
