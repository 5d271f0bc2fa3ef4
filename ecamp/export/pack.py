"""Any data set as files that map into memory: resized once, truths and texts beside the pixels.

    meta.json         info, size, source, split hash; hash and rows of every file below
    index.jsonl       one row an image: id, patient, split, labels, texts, boxes, shard and place in it
    images-0000.npy   uint8 (rows, size, size, channels)
    masks-0000.npy    uint8 (rows, mask classes, ceil(size * size / 8)): bits, row by row

`.npy` without pickle. Each shard is written whole and then named, `meta.json` last: an interrupted pack
goes on where it stopped, and a finished one is verified and mended by the same command. An image that
cannot be read keeps its row, with the reason, so that the splits stay those of the source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ecamp.api.dataset import Dataset, Record, Sample
from ecamp.config import identity
from ecamp.data.arrays import check_records, check_sample
from ecamp.data.letterbox import letterbox
from ecamp.data.splits import split_hash
from ecamp.errors import DataError, EcampError, UsageError
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
SHARD_BYTES = 256 * 2**20  # what an interruption can cost
CHUNK = 64
META, INDEX = "meta.json", "index.jsonl"


@dataclass(frozen=True)
class PackSummary:
    """What a pack holds.

    Attributes:
        made: Shards that this call wrote; the others were there and whole.
        bad: Messages of images that cannot be read.
    """

    images: int
    shards: int
    made: int
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
    log: Callable[[str], None] = lambda _: None,
) -> PackSummary:
    """Write a data set as shards, or finish and verify what was begun.

    Args:
        size: Side in pixels; images keep their proportions (`ecamp.data.letterbox`).
        on_bad_image: `fail` raises at the first bad image, `skip` keeps its row with the reason.
        workers: Processes for decoding; default one a core.
        shard_bytes: Pixels and masks of one shard.

    Raises:
        DataError: As `ecamp.data.arrays.materialise`. UsageError: The folder holds another pack.
    """
    records, info = list(dataset.records()), dataset.info
    check_records(records, info)
    channels = 1 if info.colour == "grey" else 3
    bits = len(info.mask_classes) * -(-size * size // 8)
    rows = max(1, shard_bytes // (size * size * channels + bits))
    key = identity([FORMAT, dataset.fingerprint(), size, on_bad_image, rows])
    shards = [records[i : i + rows] for i in range(0, len(records), rows)]
    with locked(folder / ".lock"):
        parts = _finished(folder, key)
        made = len(shards) - len(parts)
        if made:
            (folder / META).unlink(missing_ok=True)
        for number, shard in enumerate(shards):
            if number not in parts:
                parts[number] = _write_shard(
                    dataset, shard, size, on_bad_image, folder, number, key, workers
                )
            log(
                f"shard {number + 1} of {len(shards)}, {min((number + 1) * rows, len(records)):,} images"
            )
        index = [row for number in sorted(parts) for row in parts[number]["index"]]
        text = "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in index)
        write_bytes(folder / INDEX, text.encode())
        files = {name: told for part in parts.values() for name, told in part["files"].items()}
        files[INDEX] = _told(folder / INDEX)
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
        len(records), len(shards), made, sum(told["bytes"] for told in files.values()),
        tuple(row["bad"] for row in index if row.get("bad")),
    )  # fmt: skip


def read_index(folder: Path, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the index, checked against its hash.

    Args:
        told: Its entry in `meta.json`.

    Raises:
        DataError: Another content than when it was packed.
    """
    if content_hash(folder / INDEX) != told["sha256"]:
        raise DataError(
            f"{folder / INDEX}: not what was packed.",
            "Run the same ecamp data pack again: it mends the folder.",
        )
    lines = (folder / INDEX).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


# --- writing ------------------------------------------------------------------------------------


def _write_shard(
    dataset: Dataset, records: Sequence[Record], size: int, on_bad: str, folder: Path, number: int,
    key: str, workers: int | None,
) -> dict[str, Any]:  # fmt: skip
    info = dataset.info
    images = np.zeros((len(records), size, size, 1 if info.colour == "grey" else 3), np.uint8)
    masks = np.zeros((len(records), len(info.mask_classes), -(-size * size // 8)), np.uint8)
    index = []
    loaded = _load_all(dataset, records, size, workers or os.cpu_count() or 1)
    for at, (record, sample) in enumerate(zip(records, loaded, strict=True)):
        row = _row(record, number, at)
        index.append(row)
        if isinstance(sample, str):
            if on_bad == "fail":
                raise DataError(sample, "--on-bad-image skip packs the others.")
            row["bad"] = sample.splitlines()[0]
            continue
        images[at] = sample.image
        if sample.mask is not None and info.mask_classes:
            masks[at] = pack_bits(sample.mask)
            row["masked"] = True
        if sample.boxes is not None:
            row["boxes"] = sample.boxes.astype(float).tolist()
            kinds = sample.box_classes
            row["box_classes"] = [] if kinds is None else kinds.tolist()
    files: dict[str, np.ndarray] = {f"images-{number:04}.npy": images}
    if info.mask_classes:
        files[f"masks-{number:04}.npy"] = masks
    for name, array in files.items():
        with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    told = {name: _told(folder / name) for name in files}
    part = {"key": key, "index": index, "files": told}
    write_json(folder / f".part-{number:04}.json", part)
    return part


def _row(record: Record, shard: int, at: int) -> dict[str, Any]:
    """What the index says of an image; nothing is said of what is not there."""
    row = {
        "id": record.id, "patient": record.patient, "split": record.split, "row": record.row,
        "labels": record.labels, "report": record.report, "distilled": record.distilled,
        "has_mask": record.has_mask, "has_boxes": record.has_boxes, "shard": shard, "at": at,
    }  # fmt: skip
    return {name: value for name, value in row.items() if value is not None and value is not False}


def _load_all(
    dataset: Dataset, records: Sequence[Record], size: int, workers: int
) -> Iterator[Sample | str]:
    chunks = [records[i : i + CHUNK] for i in range(0, len(records), CHUNK)]
    tasks = (delayed(_load_chunk)(dataset, chunk, size) for chunk in chunks)
    for results in Parallel(n_jobs=min(workers, len(chunks)), return_as="generator")(tasks):
        yield from results


def _load_chunk(dataset: Dataset, records: Sequence[Record], size: int) -> list[Sample | str]:
    """Samples, or the message of what is wrong with one (errors cross processes badly)."""
    out: list[Sample | str] = []
    for record in records:
        try:
            out.append(letterbox(check_sample(dataset, record, size), size))
        except DataError as error:
            out.append(str(error))
    return out


# --- going on -----------------------------------------------------------------------------------


def _told(path: Path) -> dict[str, Any]:
    return {"sha256": content_hash(path), "bytes": path.stat().st_size}


def _finished(folder: Path, key: str) -> dict[int, dict[str, Any]]:
    """Shards that are there and whole, of a finished pack or of one that was interrupted.

    Raises:
        UsageError: They are of another pack.
    """
    parts = [_read(path) for path in sorted(folder.glob(".part-*.json"))]
    meta = _read(folder / META) if (folder / META).exists() else None
    for known in (*parts, meta):
        if known is not None and known.get("key") != key:
            raise UsageError(
                f"{folder}: holds a pack of other data, of another size or with other options.",
                "Choose another folder, or delete this one.",
            )
    if meta is not None:
        parts += _parts_of(folder, meta)
    whole: dict[int, dict[str, Any]] = {}
    for part in parts:
        if part and all(_is_whole(folder / name, told) for name, told in part["files"].items()):
            whole[part["index"][0]["shard"]] = part
    return whole


def _parts_of(folder: Path, meta: dict[str, Any]) -> list[dict[str, Any]]:
    """A finished pack as the parts that it was made of; none where its index is damaged."""
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
            "files": {n: t for n, t in meta["files"].items() if n.endswith(f"-{shard:04}.npy")},
        }
        for shard, rows in by_shard.items()
    ]  # fmt: skip


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(path)
    except EcampError:  # a damaged one counts as not there; it is written again
        return None
    return value


def _is_whole(path: Path, told: dict[str, Any]) -> bool:
    return path.exists() and path.stat().st_size == told["bytes"] and _told(path) == told
