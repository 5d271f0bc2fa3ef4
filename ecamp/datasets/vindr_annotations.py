"""Tables of VinDr-CXR, PhysioNet's and Kaggle's: what each radiologist said of each film."""

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
# The test's tables say `Other disease`.
SPELT = {"Other disease": "Other diseases"}
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
    """What the tables say of one film.

    Attributes:
        where: Its first row. votes: Radiologist -> one 0 or 1 a label; one `""` for a consensus.
        rows: Class, radiologist and box of each row of boxes; no box for a class of the whole film.
    """

    where: str
    votes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: set[tuple[int, str, Box | None]] = field(default_factory=set)

    def drawn(self) -> dict[int, list[tuple[str, Box]]]:
        """Class -> radiologist and box."""
        found: dict[int, list[tuple[str, Box]]] = {}
        for kind, reader, box in self.rows:
            if box is not None:
                found.setdefault(kind, []).append((reader, box))
        return found


def read_release(
    labels: Path, boxes: Path | None, *, consensus: bool, bad: BadRows
) -> dict[str, FilmAnnotations]:
    """Films of image_labels and annotations, in the order of the former; one with a bad row is left out.

    Args:
        boxes: None = labels alone. consensus: The tables name no radiologist.

    Raises:
        DataError: A row that cannot be used, unless `bad` leaves it out.
    """
    reader = () if consensus else ("rad_id",)
    with open_table(labels) as (header, _):
        spelt = {SPELT.get(name, name): name for name in header}
    columns = [spelt.get(name, name) for name in LOCAL + WHOLE]
    films: dict[str, FilmAnnotations] = {}
    broken = set()
    for row in read_table(labels, ("image_id", *reader, *columns), bad):
        name, where = row.values["image_id"], f"{labels.name} line {row.line}"
        with bad:
            _vote(films.setdefault(name, FilmAnnotations(where)), row.values, columns, where)
            continue
        broken.add(name)
    columns = ["image_id", *reader, "class_name", *CORNERS]
    for row in read_table(boxes, columns, bad) if boxes else ():
        name, where = row.values["image_id"], f"{boxes and boxes.name} line {row.line}"
        with bad:
            if name not in films:
                raise DataError(
                    f"{where}: '{name}' is not in {labels.name}.",
                    "Take both tables from one release.",
                )
            _draw(films[name], row.values, LOCAL, WHOLE, where, bad)
            continue
        broken.add(name)
    return {name: film for name, film in films.items() if name not in broken}


def read_kaggle(path: Path, bad: BadRows) -> dict[str, FilmAnnotations]:
    """Films of Kaggle's train.csv; a radiologist names what he drew. A film with a bad row is left out.

    Raises:
        DataError: As `read_release`.
    """
    films: dict[str, FilmAnnotations] = {}
    broken = set()
    columns = ("image_id", "class_name", "class_id", "rad_id", *CORNERS)
    for row in read_table(path, columns, bad):
        name, where = row.values["image_id"], f"{path.name} line {row.line}"
        with bad:
            film = films.setdefault(name, FilmAnnotations(where))
            kind = _draw(film, row.values, KAGGLE, (NONE,), where, bad)
            if row.values["class_id"] != str(kind):
                raise DataError(
                    f"{where}: class_id of '{row.values['class_name']}' is {kind}, "
                    f"not '{row.values['class_id']}'.",
                    "Take train.csv as Kaggle has it.",
                )
            reader = row.values["rad_id"]
            before = film.votes.get(reader, (0,) * len(KAGGLE))
            film.votes[reader] = tuple(v | (k == kind) for k, v in enumerate(before))
            continue
        broken.add(name)
    return {name: film for name, film in films.items() if name not in broken}


def read_sizes(path: Path, bad: BadRows) -> dict[str, tuple[int, int]]:
    """image_id -> width and height of the film; dim0 counts rows, as the shape of an array does.

    Raises:
        DataError: Numbers that are none.
    """
    sizes = {}
    for row in read_table(path, ("image_id", "dim0", "dim1"), bad):
        with bad:
            try:
                height, width = (int(float(row.values[key])) for key in ("dim0", "dim1"))
            except (ValueError, OverflowError):
                height = width = 0
            if height <= 0 or width <= 0:
                raise DataError(
                    f"{path.name} line {row.line}: no size '{row.values['dim0']}' x '{row.values['dim1']}'.",
                    "dim0 and dim1 are height and width of the film in pixels.",
                )
            sizes[row.values["image_id"]] = (width, height)
    return sizes


def _vote(
    film: FilmAnnotations, values: dict[str, str], columns: Sequence[str], where: str
) -> None:
    """Add a row of image_labels.

    Raises:
        DataError: A label that is none; a radiologist twice.
    """
    reader = values.get("rad_id", "")
    if reader in film.votes:
        by = f" by '{reader}'" if reader else ""
        raise DataError(
            f"{where}: '{values['image_id']}' stands twice{by}.", "Remove one of the rows."
        )
    for column in columns:
        if values[column] not in BIT:
            raise DataError(
                f"{where}: {column} is '{values[column]}', no label.", "Labels are 0 or 1."
            )
    film.votes[reader] = tuple(BIT[values[column]] for column in columns)


def _draw(
    film: FilmAnnotations, values: dict[str, str], local: tuple[str, ...], whole: tuple[str, ...], where: str,
    bad: BadRows,
) -> int:  # fmt: skip
    """Add a row of boxes, and give the index of its class in `local + whole`.

    Raises:
        DataError: No class; a finding without box, a label of the whole film with one; a row twice.
    """
    classes, name = local + whole, SPELT.get(values["class_name"], values["class_name"])
    if name not in classes:
        raise DataError(f"{where}: '{name}' is no class.", did_you_mean(name, classes))
    kind = classes.index(name)
    row = (kind, values.get("rad_id", ""), _box(values, name in local, where))
    with bad:  # the same thing said again changes nothing: this row alone is left out
        if row in film.rows:
            raise DataError(
                f"{where}: '{values['image_id']}' has this row twice.",
                "Remove one of them, or on_bad_row=skip.",
            )
        film.rows.add(row)
    return kind


def _box(values: dict[str, str], local: bool, where: str) -> Box | None:
    """The box of a row; None where the class is one of the whole film.

    Raises:
        DataError: A finding without box, a label of the whole film with one, numbers that are none.
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
            f"{where}: '{values['class_name']}' with box {', '.join(corners)}.",
            "A finding needs x_min < x_max and y_min < y_max, a label of the whole film has no box.",
        )
    return x1, y1, x2, y2
