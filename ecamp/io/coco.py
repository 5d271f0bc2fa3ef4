"""Boxes from a COCO file, read and checked: one reader for all data sets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.errors import DataError, MissingError


@dataclass(frozen=True)
class CocoBoxes:
    """Boxes of a COCO file.

    Attributes:
        classes: Category names in the order of their ids.
        by_name: File name -> (boxes float32 (n, 4) x1 y1 x2 y2, classes int64 (n,)); an image
            that the file lists without annotation has n = 0, one that it does not list is absent.
    """

    classes: tuple[str, ...]
    by_name: dict[str, tuple[np.ndarray, np.ndarray]]


def read_coco(path: Path) -> CocoBoxes:
    """Read `images`, `annotations`, `categories` of a COCO JSON file; crowd boxes are refused.

    Raises:
        MissingError: No such file. DataError: Not JSON, a key or id missing; names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such file.", "Check the path where it is named.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}.") from error
    try:
        return _coco(value, path)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: no COCO file: {type(error).__name__}: {error}.",
            "It needs images (id, file_name), categories (id, name), annotations (image_id, "
            "category_id, bbox).",
        ) from error


def _coco(value: dict[str, Any], path: Path) -> CocoBoxes:
    categories = sorted(value["categories"], key=lambda c: c["id"])
    kind = {c["id"]: k for k, c in enumerate(categories)}
    names = {image["id"]: str(image["file_name"]) for image in value["images"]}
    found: dict[str, list[tuple[list[float], int]]] = {name: [] for name in names.values()}
    for at, note in enumerate(value["annotations"]):
        where = f"{path} annotation {note.get('id', at)}"
        if note["image_id"] not in names:
            raise DataError(
                f"{where}: image {note['image_id']} is not listed.", "Add it to `images`."
            )
        if note["category_id"] not in kind:
            raise DataError(
                f"{where}: category {note['category_id']} is not listed.", "Add it to `categories`."
            )
        if note.get("iscrowd"):
            raise DataError(f"{where}: crowd regions are not supported.", "Leave it out.")
        x, y, width, height = (float(v) for v in note["bbox"])
        found[names[note["image_id"]]].append(
            ([x, y, x + width, y + height], kind[note["category_id"]])
        )
    return CocoBoxes(
        tuple(str(c["name"]) for c in categories),
        {
            name: (
                np.array([box for box, _ in pairs], np.float32).reshape(-1, 4),
                np.array([k for _, k in pairs], np.int64),
            )
            for name, pairs in found.items()
        },
    )
