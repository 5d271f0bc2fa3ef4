"""Checked reader of COCO box files, for all data sets."""

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
        by_name: File name -> (boxes float32 (n, 4) x1 y1 x2 y2, classes int64 (n,)). An image
            listed without annotation has n = 0; an image that is not listed has no entry.
    """

    classes: tuple[str, ...]
    by_name: dict[str, tuple[np.ndarray, np.ndarray]]


def read_coco(path: Path) -> CocoBoxes:
    """Read `images`, `annotations` and `categories` of a COCO JSON file; refuse crowd boxes.

    Raises:
        MissingError: No such file.
        DataError: Not JSON, or a key or id is missing; names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such file.", "Check the path in `boxes`.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON: {error}.") from error
    try:
        return _coco(value, path)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not a COCO file: {type(error).__name__}: {error}.",
            "It needs images (id, file_name), categories (id, name), annotations (image_id, "
            "category_id, bbox).",
        ) from error


def _coco(value: dict[str, Any], path: Path) -> CocoBoxes:
    categories = sorted(value["categories"], key=lambda c: c["id"])
    class_ids = {c["id"]: k for k, c in enumerate(categories)}
    names = {image["id"]: str(image["file_name"]) for image in value["images"]}
    boxes: dict[str, list[tuple[list[float], int]]] = {name: [] for name in names.values()}
    for index, annotation in enumerate(value["annotations"]):
        location = f"{path} annotation {annotation.get('id', index)}"
        if annotation["image_id"] not in names:
            raise DataError(
                f"{location}: image {annotation['image_id']} is not in `images`.", "Add it there."
            )
        if annotation["category_id"] not in class_ids:
            raise DataError(
                f"{location}: category {annotation['category_id']} is not in `categories`.",
                "Add it there.",
            )
        if annotation.get("iscrowd"):
            raise DataError(f"{location}: crowd regions are not supported.", "Remove it.")
        x, y, width, height = (float(v) for v in annotation["bbox"])
        boxes[names[annotation["image_id"]]].append(
            ([x, y, x + width, y + height], class_ids[annotation["category_id"]])
        )
    return CocoBoxes(
        tuple(str(c["name"]) for c in categories),
        {
            name: (
                np.array([box for box, _ in pairs], np.float32).reshape(-1, 4),
                np.array([k for _, k in pairs], np.int64),
            )
            for name, pairs in boxes.items()
        },
    )
