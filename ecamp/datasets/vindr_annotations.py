"""Annotation tables of VinDr-CXR (PhysioNet and Kaggle), by film and radiologist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path

from ecamp.errors import DataError, did_you_mean
from ecamp.io.boxes import Box
from ecamp.io.table import BadRows, open_table, read_table

# In the order of the columns of image_labels_*.csv: 22 with boxes, then 6 of the whole film.
LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
NONE = "No finding"
WHOLE = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", NONE)
# The tables of the test spell it `Other disease`.
SPELLINGS = {"Other disease": "Other diseases"}
# In the order of class_id of Kaggle's train.csv; 14 is `No finding`.
KAGGLE = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
)  # fmt: skip
CORNERS = ("x_min", "y_min", "x_max", "y_max")
BIT = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass
class FilmAnnotations:
    """Annotations of one film.

    Attributes:
        location: Its first row.
        votes: Radiologist -> one 0 or 1 per label; a consensus has the single key `""`.
        rows: Class, radiologist and box of each row of boxes; classes of the whole film have no box.
    """

    location: str
    votes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: set[tuple[int, str, Box | None]] = field(default_factory=set)

    def boxes_by_class(self) -> dict[int, list[tuple[str, Box]]]:
        """Group radiologists and boxes by class."""
        grouped: dict[int, list[tuple[str, Box]]] = {}
        for class_id, reader, box in self.rows:
            if box is not None:
                grouped.setdefault(class_id, []).append((reader, box))
        return grouped


def read_release(
    labels: Path, boxes: Path | None, *, consensus: bool, bad: BadRows
) -> dict[str, FilmAnnotations]:
    """Read the tables image_labels and annotations; films with a bad row are skipped whole.

    Args:
        labels: The table image_labels.
        boxes: The table annotations; None = only labels.
        consensus: Whether the tables have one consensus instead of radiologists.
        bad: Policy for bad rows.

    Returns:
        Films in the order of image_labels.

    Raises:
        DataError: A row that cannot be used, unless `bad` skips it.
    """
    reader = () if consensus else ("rad_id",)
    with open_table(labels) as (header, _):
        spelling = {SPELLINGS.get(name, name): name for name in header}
    columns = [spelling.get(name, name) for name in LOCAL + WHOLE]
    films: dict[str, FilmAnnotations] = {}
    broken = set()
    for row in read_table(labels, ("image_id", *reader, *columns), bad):
        name, location = row.values["image_id"], f"{labels.name} line {row.line}"
        with bad:
            _add_votes(
                films.setdefault(name, FilmAnnotations(location)), row.values, columns, location
            )
            continue
        broken.add(name)
    columns = ["image_id", *reader, "class_name", *CORNERS]
    for row in read_table(boxes, columns, bad) if boxes else ():
        name, location = row.values["image_id"], f"{boxes and boxes.name} line {row.line}"
        with bad:
            if name not in films:
                raise DataError(
                    f"{location}: '{name}' is not in {labels.name}.",
                    "Use both tables of the same release.",
                )
            _add_box(films[name], row.values, LOCAL, WHOLE, location, bad)
            continue
        broken.add(name)
    return {name: film for name, film in films.items() if name not in broken}


def read_kaggle(path: Path, bad: BadRows) -> dict[str, FilmAnnotations]:
    """Read Kaggle's train.csv: radiologists name what they draw. Films with a bad row are skipped.

    Raises:
        DataError: As `read_release`.
    """
    films: dict[str, FilmAnnotations] = {}
    broken = set()
    columns = ("image_id", "class_name", "class_id", "rad_id", *CORNERS)
    for row in read_table(path, columns, bad):
        name, location = row.values["image_id"], f"{path.name} line {row.line}"
        with bad:
            film = films.setdefault(name, FilmAnnotations(location))
            class_id = _add_box(film, row.values, KAGGLE, (NONE,), location, bad)
            if row.values["class_id"] != str(class_id):
                raise DataError(
                    f"{location}: class_id of '{row.values['class_name']}' is {class_id}, "
                    f"not '{row.values['class_id']}'.",
                    "Use train.csv as published on Kaggle.",
                )
            reader = row.values["rad_id"]
            previous = film.votes.get(reader, (0,) * len(KAGGLE))
            film.votes[reader] = tuple(v | (k == class_id) for k, v in enumerate(previous))
            continue
        broken.add(name)
    return {name: film for name, film in films.items() if name not in broken}


def read_sizes(path: Path, bad: BadRows) -> dict[str, tuple[int, int]]:
    """Read image_id -> width and height of the film; dim0 is the number of rows, as in array shapes.

    Raises:
        DataError: Not positive numbers; names the row.
    """
    sizes = {}
    for row in read_table(path, ("image_id", "dim0", "dim1"), bad):
        with bad:
            try:
                height, width = (int(float(row.values[key])) for key in ("dim0", "dim1"))
            except (ValueError, OverflowError):
                height = width = 0
            if height <= 0 or width <= 0:
                size = f"'{row.values['dim0']}' x '{row.values['dim1']}'"
                raise DataError(
                    f"{path.name} line {row.line}: {size} is not a size.",
                    "dim0 and dim1 are height and width of the film in pixels.",
                )
            sizes[row.values["image_id"]] = (width, height)
    return sizes


def _add_votes(
    film: FilmAnnotations, values: dict[str, str], columns: Sequence[str], location: str
) -> None:
    """Add a row of image_labels.

    Raises:
        DataError: A label other than 0 and 1, or a duplicate row; names the row.
    """
    reader = values.get("rad_id", "")
    if reader in film.votes:
        by = f" by '{reader}'" if reader else ""
        raise DataError(
            f"{location}: duplicate image_id '{values['image_id']}'{by}.", "Remove one of the rows."
        )
    for column in columns:
        if values[column] not in BIT:
            raise DataError(
                f"{location}: '{values[column]}' in '{column}' is not a label.",
                "Labels are 0 or 1.",
            )
    film.votes[reader] = tuple(BIT[values[column]] for column in columns)


def _add_box(
    film: FilmAnnotations, values: dict[str, str], local: tuple[str, ...], whole: tuple[str, ...],
    location: str, bad: BadRows,
) -> int:  # fmt: skip
    """Add a row of boxes and return the index of its class in `local + whole`.

    Raises:
        DataError: An unknown class, a finding without a box, a label of the whole film with a box, or
            a duplicate row; names the row.
    """
    classes, name = local + whole, SPELLINGS.get(values["class_name"], values["class_name"])
    if name not in classes:
        raise DataError(f"{location}: unknown class '{name}'.", did_you_mean(name, classes))
    class_id = classes.index(name)
    row = (class_id, values.get("rad_id", ""), _box(values, name in local, location))
    with bad:  # a duplicate changes nothing: only this row is skipped, not the film
        if row in film.rows:
            raise DataError(
                f"{location}: duplicate row of '{values['image_id']}'.",
                "Remove one of them, or use on_bad_row=skip.",
            )
        film.rows.add(row)
    return class_id


def _box(values: dict[str, str], local: bool, location: str) -> Box | None:
    """Parse the box of a row; None for a class of the whole film.

    Raises:
        DataError: A finding without a box, a label of the whole film with a box, or not numbers.
    """
    corners = [values[key] for key in CORNERS]
    if not local and not any(corners):
        return None
    try:
        x1, y1, x2, y2 = (float(corner) for corner in corners)
    except ValueError:
        x1 = y1 = x2 = y2 = nan
    if not (local and -inf < x1 < x2 < inf and -inf < y1 < y2 < inf):
        raise DataError(
            f"{location}: '{values['class_name']}' with box {', '.join(corners)}.",
            "A finding needs x_min < x_max and y_min < y_max; a label of the whole film has no box.",
        )
    return x1, y1, x2, y2
