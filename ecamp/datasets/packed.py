"""Packed data sets (`ecamp data pack`): records and splits of the source, pixels mapped from disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample, Truth
from ecamp.api.plugin import PluginConfig
from ecamp.config import identity
from ecamp.errors import DataError, MissingError
from ecamp.export.pack import FORMAT, META, read_index
from ecamp.storage.bits import unpack_bits
from ecamp.storage.files import read_json


class PackedConfig(PluginConfig):
    """Folder of the pack."""

    path: str = Field(description="folder that `ecamp data pack` wrote")


class Packed(Dataset[PackedConfig]):
    """Splits, split hash, labels and texts of the source; images have the packed size."""

    summary = "any data set, packed into shards on disk by `ecamp data pack`"
    licence = "as the data's"
    citation = "docs/add-a-data-set.md"
    layout = "a folder of `ecamp data pack NAME -o FOLDER`: meta.json, index.jsonl, images-*.npy"

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes map the files themselves.
        kept = ("config", "variant", "ref", "origin")
        return {name: getattr(self, name) for name in kept}

    @cached_property
    def root(self) -> Path:
        """The folder."""
        return Path(self.config.path).expanduser()

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Content of `meta.json`.

        Raises:
            MissingError: No pack, or an unfinished one.
            DataError: Another format, or a truncated file.
        """
        try:
            meta: dict[str, Any] = read_json(self.root / META)
        except (FileNotFoundError, NotADirectoryError):
            unfinished = any(self.root.glob(".part-*.json"))
            raise MissingError(
                f"{self.root}: {'unfinished' if unfinished else 'no'} pack: {META} is missing.",
                "Run the same ecamp data pack again: it resumes." if unfinished
                else "path must name a folder written by ecamp data pack.",
            ) from None  # fmt: skip
        if meta.get("format") != FORMAT:
            raise DataError(
                f"{self.root / META}: format {meta.get('format')}, not {FORMAT}.", "Pack it again."
            )
        for name, entry in meta["files"].items():
            path = self.root / name
            size = path.stat().st_size if path.exists() else 0
            if size != entry["bytes"]:
                raise DataError(
                    f"{path}: {size:,} of {entry['bytes']:,} bytes.",
                    "Run the same ecamp data pack again: it repairs the folder.",
                )
        return meta

    @property
    def info(self) -> DatasetInfo:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.meta["info"].items()
        }
        fields["truths"] = tuple(Truth(**truth) for truth in fields["truths"])
        return DatasetInfo(**fields)

    @cached_property
    def _records(self) -> list[Record]:
        index = read_index(self.root, self.meta["files"]["index.jsonl"])
        return [
            Record(
                row["id"], row["patient"], row["split"], row.get("row", ""),
                tuple(row["labels"]) if "labels" in row else None,
                row.get("report"), row.get("distilled"),
                row.get("has_mask", False), row.get("has_boxes", False), row.get("truths", {}), payload=row,
            )
            for row in index
        ]  # fmt: skip

    def records(self) -> Sequence[Record]:
        return self._records

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return {}

    def _shard(self, prefix: str, number: int) -> np.ndarray:
        name = f"{prefix}-{number:04}.npy"
        if name not in self._maps:
            try:
                self._maps[name] = np.load(self.root / name, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self.root / name}: damaged: {error}.", "Run ecamp data pack again."
                ) from error
        return self._maps[name]

    def load(self, record: Record, size: int) -> Sample:
        row = record.payload
        if "bad" in row:
            raise DataError(row["bad"], "It could not be read when the data set was packed.")
        image = np.array(self._shard("images", row["shard"])[row["at"]])
        mask = None
        if row.get("masked"):
            bits = np.array(self._shard("masks", row["shard"])[row["at"]])
            mask = unpack_bits(bits, (len(bits), self.meta["size"], self.meta["size"]))
        points = {
            name: np.array(xy, np.float32).reshape(-1, 2)
            for name, xy in row.get("points", {}).items()
        }
        if "boxes" not in row:
            return Sample(image, mask, points=points)
        boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
        return Sample(image, mask, boxes, np.array(row["box_classes"], np.int64), points)

    def fingerprint(self) -> str:
        return identity(["packed", self.meta])
