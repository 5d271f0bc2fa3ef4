"""Any data set as memory-mapped files: images resized once, truths and texts next to them.

    meta.json         info, size, source, split hash; checksum and size of every file below
    index.jsonl       one row per image: id, patient, split, labels, texts, boxes, other truths, shard
                      and index in it
    images-0000.npy   uint8 (rows, size, size, channels)
    masks-0000.npy    uint8 (rows, mask classes, ceil(size * size / 8)): bits in row order

`.npy` without pickle. Each shard is written completely before it gets its name, and `meta.json` last: the
same command resumes an interrupted pack, and verifies and repairs a finished one. An image that cannot
be read keeps its row, with the reason, so that the splits stay those of the source.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.api.dataset import Dataset, Record
from ecamp.config import identity
from ecamp.data.decoding import BadImage, check_records, decode
from ecamp.data.splits import split_hash
from ecamp.errors import DataError, EcampError, UsageError
from ecamp.progress import Progress, no_progress
from ecamp.storage.bits import pack_bits
from ecamp.storage.files import (
    atomic_path,
    content_hash,
    locked,
    read_json,
    write_bytes,
    write_json,
)

FORMAT = 1
SHARD_BYTES = 256 * 2**20  # work that an interruption can lose
META, INDEX = "meta.json", "index.jsonl"


@dataclass(frozen=True)
class PackSummary:
    """Content of a pack.

    Attributes:
        images: Rows, bad images included.
        shards: Shards in the folder.
        written: Shards that this call wrote; the others existed and were intact.
        bytes: Size of all files.
        bad: Messages of images that cannot be read.
    """

    images: int
    shards: int
    written: int
    bytes: int
    bad: tuple[str, ...]


def pack(
    dataset: Dataset,
    folder: Path,
    size: int,
    *,
    on_bad_image: str = "fail",
    workers: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = no_progress,
) -> PackSummary:
    """Write a data set as shards, or verify and complete an existing pack.

    Args:
        folder: Folder to write.
        size: Side in pixels; images keep their proportions (`ecamp.data.letterbox`).
        on_bad_image: `fail` raises at the first bad image, `skip` keeps its row with the reason.
        workers: Processes for decoding; default one per core.
        shard_bytes: Size of pixels and masks of one shard.
        progress: Receives each finished shard.

    Raises:
        DataError: As `ecamp.data.arrays.materialise`.
        UsageError: The folder contains another pack.
    """
    records, info = list(dataset.records()), dataset.info
    check_records(records, info)
    bits = len(info.mask_classes) * -(-size * size // 8)
    rows = max(1, shard_bytes // (size * size * info.channels + bits))
    key = identity([FORMAT, dataset.identity, size, on_bad_image, rows])
    shards = [records[i : i + rows] for i in range(0, len(records), rows)]
    with locked(folder / ".lock"):
        parts = _intact_parts(folder, key)
        written = len(shards) - len(parts)
        if written:
            (folder / META).unlink(missing_ok=True)
        progress(0, len(records), "images")
        for number, shard in enumerate(shards):
            if number not in parts:
                parts[number] = _write_shard(
                    dataset, shard, size, on_bad_image, folder, number, key, workers
                )
            packed = min((number + 1) * rows, len(records))
            progress(packed, len(records), f"images, shard {number + 1} of {len(shards)}")
        index = [row for number in sorted(parts) for row in parts[number]["index"]]
        text = "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in index)
        write_bytes(folder / INDEX, text.encode())
        files = {name: entry for part in parts.values() for name, entry in part["files"].items()}
        files[INDEX] = _checksum(folder / INDEX)
        write_json(
            folder / META,
            {
                "format": FORMAT, "key": key, "size": size, "rows_a_shard": rows,
                "info": asdict(info), "files": files,
                "split_hash": split_hash([r.id for r in records], [r.split for r in records]),
                "source": {
                    "fingerprint": dataset.fingerprint(), "summary": dataset.summary,
                    "licence": dataset.licence, "citation": dataset.citation,
                },
            },
        )  # fmt: skip
        for path in folder.glob(".part-*.json"):
            path.unlink()
    return PackSummary(
        len(records), len(shards), written, sum(entry["bytes"] for entry in files.values()),
        tuple(row["bad"] for row in index if row.get("bad")),
    )  # fmt: skip


def read_index(folder: Path, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the rows of the index and check its checksum.

    Args:
        entry: Its entry in `meta.json`.

    Raises:
        DataError: The content has changed since it was packed.
    """
    if content_hash(folder / INDEX) != entry["sha256"]:
        raise DataError(
            f"{folder / INDEX}: changed since it was packed.",
            "Run the same ecamp data pack again: it repairs the folder.",
        )
    lines = (folder / INDEX).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


# --- writing ------------------------------------------------------------------------------------


def _write_shard(
    dataset: Dataset, records: Sequence[Record], size: int, on_bad: str, folder: Path, number: int,
    key: str, workers: int | None,
) -> dict[str, Any]:  # fmt: skip
    info = dataset.info
    images = np.zeros((len(records), size, size, info.channels), np.uint8)
    masks = np.zeros((len(records), len(info.mask_classes), -(-size * size // 8)), np.uint8)
    index = []
    samples = decode(dataset, records, size, workers)
    for position, (record, sample) in enumerate(zip(records, samples, strict=True)):
        row = _row(record, number, position)
        index.append(row)
        if isinstance(sample, BadImage):
            if on_bad == "fail":
                raise DataError(sample.message, "--on-bad-image skip packs the others.")
            row["bad"] = sample.message.splitlines()[0]
            continue
        images[position] = sample.image
        if sample.mask is not None and info.mask_classes:
            masks[position] = pack_bits(sample.mask)
            row["masked"] = True
        if sample.boxes is not None:
            row["boxes"] = sample.boxes.astype(float).tolist()
            classes = sample.box_classes
            row["box_classes"] = [] if classes is None else classes.tolist()
        if sample.points:
            row["points"] = {n: xy.astype(float).tolist() for n, xy in sample.points.items()}
    files: dict[str, np.ndarray] = {f"images-{number:04}.npy": images}
    if info.mask_classes:
        files[f"masks-{number:04}.npy"] = masks
    for name, array in files.items():
        with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    part = {"key": key, "index": index, "files": {name: _checksum(folder / name) for name in files}}
    write_json(folder / f".part-{number:04}.json", part)
    return part


def _row(record: Record, shard: int, position: int) -> dict[str, Any]:
    """Build the index row of an image; fields without a value are left out."""
    row = {
        "id": record.id, "patient": record.patient, "split": record.split, "row": record.row,
        "labels": record.labels, "report": record.report, "distilled": record.distilled,
        "has_mask": record.has_mask, "has_boxes": record.has_boxes,
        "truths": dict(record.truths) or None, "shard": shard, "at": position,
    }  # fmt: skip
    return {name: value for name, value in row.items() if value is not None and value is not False}


# --- resuming -----------------------------------------------------------------------------------


def _checksum(path: Path) -> dict[str, Any]:
    return {"sha256": content_hash(path), "bytes": path.stat().st_size}


def _intact_parts(folder: Path, key: str) -> dict[int, dict[str, Any]]:
    """Find the intact shards of a finished or interrupted pack.

    Raises:
        UsageError: They belong to another pack.
    """
    parts = [_read(path) for path in sorted(folder.glob(".part-*.json"))]
    meta = _read(folder / META) if (folder / META).exists() else None
    for existing in (*parts, meta):
        if existing is not None and existing.get("key") != key:
            raise UsageError(
                f"{folder}: contains a pack of other data, of another size or with other options.",
                "Choose another folder, or delete this one.",
            )
    if meta is not None:
        parts += _parts_of(folder, meta)
    intact: dict[int, dict[str, Any]] = {}
    for part in parts:
        if part and all(_is_intact(folder / name, entry) for name, entry in part["files"].items()):
            intact[part["index"][0]["shard"]] = part
    return intact


def _parts_of(folder: Path, meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a finished pack into the parts that it was made of; none if its index is damaged."""
    try:
        index = read_index(folder, meta["files"][INDEX])
    except EcampError:
        return []
    by_shard: dict[int, list[dict[str, Any]]] = {}
    for row in index:
        by_shard.setdefault(row["shard"], []).append(row)
    return [
        {
            "key": meta["key"], "index": rows,
            "files": {n: e for n, e in meta["files"].items() if n.endswith(f"-{shard:04}.npy")},
        }
        for shard, rows in by_shard.items()
    ]  # fmt: skip


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(path)
    except EcampError:  # a damaged one counts as missing; it is written again
        return None
    return value


def _is_intact(path: Path, entry: dict[str, Any]) -> bool:
    return path.exists() and path.stat().st_size == entry["bytes"] and _checksum(path) == entry
