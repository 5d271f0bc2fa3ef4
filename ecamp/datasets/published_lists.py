"""The published list files as they are: one reader for those of ECAMP, MRM, MGCA, BenchX and LoVT.

A folder holds one file a split and fraction (`train_list_10.txt`, `val_list.csv`, ...); the form of a
file is seen from its first lines:

| form | row |
| --- | --- |
| labels | `images_006/00011997_000.png 0 0 1 ...`: path and integers, any white space |
| ids | `00011997_000.png`, alone on its line |
| covidx | `patient file class source`, four words without integers behind the path |
| boxes | csv `image_path,bbox`: `"[[x1, y1, x2, y2], ...]"`, all zeros = none; MGCA's `patientId,bbox,Target` |
| boxes | csv `ID,boxes,classes` of LoVT: `x;y;width;height|...` |
| coco | json, as Detectron2 writes it (`rsna_test_coco_format.json`) |
| rle | csv `ImageId,EncodedPixels` (any spaces), several rows an image, `-1` = none |
| pairs | csv `img_path,mask_path` |
| chexpert | csv with `Path` and 14 findings |
| classes | csv `filename,class,labels` of MGCA |
| table | any other csv with an id or path column |
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecamp.errors import DataError, MissingError
from ecamp.io.coco import read_coco
from ecamp.io.table import STRICT, BadRows, open_table

# File name -> list name; the number is the percentage of a label fraction.
_NAME = re.compile(
    r"(?:Xray14_|rsna_)?(?P<split>train(?:ing)?|val(?:id(?:ation)?)?|test|dev)"
    r"(?:_?(?:list|split|official|coco_format))?(?:_0*(?P<percent>1|5|10|100))?(?P<rest>_\d{3,})?",
    re.IGNORECASE,
)  # fmt: skip
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
           "dev": "val", "test": "test"}  # fmt: skip
_INTEGER = re.compile(r"-?\d+")
ID_COLUMNS = ("image_path", "img_path", "imageid", "path", "image index", "image_name", "id",
              "patientid", "id_code", "filename", "new_filename", "image")  # fmt: skip
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "patient id", "subject_id")


@dataclass(frozen=True)
class Row:
    """One row of a list.

    Attributes:
        image: The path or id, as written.
        patient: Who is on it, where the name or a column tells; else None.
        labels: Integers, or None. boxes: (x1, y1, x2, y2), or None where the form has none.
        rle: Encoded runs, or None; "" = an image known to be empty.
        line: Line in the file, from 1. word: The class as COVIDx names it.
        mask: Path of the mask image, as written; None where the form has none.
    """

    image: str
    patient: str | None
    labels: tuple[int, ...] | None
    boxes: tuple[tuple[float, float, float, float], ...] | None
    rle: str | None
    line: int
    word: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class PublishedList:
    """One file.

    Attributes:
        split: train, val or test. percent: Of a training fraction; 100 for the whole.
        form: As in the table above.
    """

    path: Path
    split: str
    percent: int
    form: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """`train_10`, `val` ..."""
        return self.split if self.percent == 100 else f"{self.split}_{self.percent}"


def read_lists(folder: Path, bad: BadRows = STRICT) -> list[PublishedList]:
    """Read all lists of a folder, training first, small fractions first.

    Raises:
        MissingError: No folder, or no list in it; says what was looked for and what is there.
        DataError: Names file and line.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder.", "Name the folder that holds the lists.")
    found = [read_list(path, *name, bad) for path, name in list_files(folder)]
    if not found:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise MissingError(
            f"{folder}: no list.",
            f"Looked for train_list.txt, val_list.csv, test.csv and the like; found {there}.",
        )
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(found, key=lambda lst: (order[lst.split], lst.percent, lst.path.name))


def list_files(folder: Path) -> Iterator[tuple[Path, tuple[str, int]]]:
    """Files whose names say that they are lists, with split and percentage; no file is opened."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (name := _list_name(path)) is not None:
            yield path, name


def _list_name(path: Path) -> tuple[str, int] | None:
    """Split and percentage that a file name tells; None for a file that is no list."""
    match = _NAME.fullmatch(path.stem)
    suffix = path.suffix.lower()
    kinds = (".json",) if path.stem.endswith("_coco_format") else (".txt", ".csv", ".tsv")
    if not path.is_file() or suffix not in kinds or match is None:
        return None
    if match["rest"]:  # test_list_600.txt: another list, which nothing uses
        return None
    return _SPLITS[match["split"].lower()], int(match["percent"] or 100)


def read_list(path: Path, split: str, percent: int = 100, bad: BadRows = STRICT) -> PublishedList:
    """Read one list, whatever its form.

    Args:
        bad: What becomes of a row that cannot be read.

    Raises:
        DataError: Names file and line.
    """
    readers = {".txt": _plain, ".json": _coco}
    form, rows = readers.get(path.suffix.lower(), _table)(path, bad)
    if not rows:
        raise DataError(f"{path}: no rows.", "An empty list; download it again.")
    return PublishedList(path, split, percent, form, tuple(rows))


def _plain(path: Path, bad: BadRows) -> tuple[str, list[Row]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8.", "Save it as UTF-8.") from error
    lines = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        return "ids", []
    start, first = lines[0]
    if len(first) == 1:
        form = "ids"
    elif all(_INTEGER.fullmatch(word) for word in first[1:]):
        form = "labels"
    elif len(first) >= 4:
        form = "covidx"
    else:
        raise DataError(f"{path} line {start}: no known form: {' '.join(first)[:80]}")
    rows = []
    for number, words in lines:
        where = f"{path} line {number}"
        with bad:
            if form == "covidx":
                rows.append(_covidx(words, number, where))
                continue
            if len(words) != len(first) or not all(_INTEGER.fullmatch(w) for w in words[1:]):
                raise DataError(
                    f"{where}: {len(words) - 1} labels, line {start} has {len(first) - 1}: "
                    f"{' '.join(words)[:80]}",
                    "Every row: a path, then as many integers as there are classes.",
                )
            labels = tuple(int(word) for word in words[1:]) or None
            rows.append(Row(words[0], patient_of(words[0]), labels, None, None, number))
    return form, rows


def _covidx(words: list[str], number: int, where: str) -> Row:
    """`patient file class source`; a file name may hold spaces, the others do not."""
    if len(words) < 4:
        raise DataError(f"{where}: {len(words)} words, expected patient file class source.")
    return Row(" ".join(words[1:-2]), words[0], None, None, None, number, words[-2])


def _table(path: Path, bad: BadRows) -> tuple[str, list[Row]]:
    with open_table(path, bad) as (header, values):
        lower = [name.lower() for name in header]

        def column(*names: str) -> int | None:
            return next((lower.index(name) for name in names if name in lower), None)

        image = column(*ID_COLUMNS)
        if image is None:
            raise DataError(
                f"{path}: no column that names an image.",
                f"Looked for {', '.join(ID_COLUMNS)}; it has {', '.join(header)[:200] or 'none'}.",
            )
        box, rle = column("bbox", "boxes"), column("encodedpixels")
        form = "boxes" if box is not None else "rle" if rle is not None else "table"
        mask = column("mask_path")
        if mask is not None:
            form = "pairs"
        if "path" in lower and "atelectasis" in lower:
            form = "chexpert"
        # MGCA's csv files name the label too; other tables have columns of these names with other things.
        word = column("class") if {"filename", "class", "labels"} <= set(lower) else None
        label = column("labels") if word is not None else None
        if word is not None:
            form = "classes"
        elif box is not None:
            label = column("target")
        # RSNA's patientId names the image: then every image is a patient of its own.
        person = column(*PATIENT_COLUMNS)
        rows: list[Row] = []
        for line, cells in values:
            with bad:
                where = f"{path} line {line}"
                name = cells[image].strip()
                patient = cells[person].strip() if person is not None else patient_of(name)
                boxes = None if box is None else _boxes(cells[box], where)
                labels = None if label is None else (_label(cells[label], where),)
                runs = None
                if rle is not None:
                    runs = cells[rle].strip()
                    runs = "" if runs == "-1" else runs
                drawn = cells[mask].strip() if mask is not None else None
                told = cells[word].strip() if word is not None else None
                rows.append(Row(name, patient or None, labels, boxes, runs, line, told, drawn))
        return form, rows


def _coco(path: Path, bad: BadRows) -> tuple[str, list[Row]]:
    """Images of a COCO file with the boxes of all categories; a line is the place among the images."""
    rows = []
    for number, (name, (boxes, _)) in enumerate(read_coco(path).by_name.items(), 1):
        held = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist())
        rows.append(Row(name, patient_of(name), None, held, None, number))
    return "coco", rows


def _label(text: str, where: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        raise DataError(f"{where}: '{text.strip()}' is no label.", "A label is an integer.")
    return int(text)


def _boxes(text: str, where: str) -> tuple[tuple[float, float, float, float], ...]:
    """`[[x1, y1, x2, y2], ...]`, or `x;y;width;height|...`; a box of zeros (or nothing) means none."""
    if not text.strip():
        return ()
    try:
        by_corners = text.strip().startswith(("[", "("))
        value = ast.literal_eval(text) if by_corners else [b.split(";") for b in text.split("|")]
        boxes = [tuple(float(v) for v in box) for box in value]
        if any(len(box) != 4 for box in boxes):
            raise ValueError("not four numbers")
        if not by_corners:
            boxes = [(x, y, x + width, y + height) for x, y, width, height in boxes]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(
            f"{where}: no boxes: {text[:60]}: {error}",
            "Write [[x1, y1, x2, y2], ...] or x;y;width;height|...",
        ) from error
    return tuple((b[0], b[1], b[2], b[3]) for b in boxes if any(b))


_PATIENTS = (
    re.compile(r"(?:^|/)(?P<p>\d{8})_\d{3}\.\w+$"),  # ChestX-ray14
    re.compile(r"(?:^|/)(?P<p>patient\d+)/"),  # CheXpert
    re.compile(r"(?:^|/)(?P<p>\d+)_(?:left|right)\.\w+$", re.IGNORECASE),  # ODIR
    re.compile(r"(?:^|/)p\d\d/(?P<p>p\d{8})/"),  # MIMIC
    # COVIDx: Stony Brook, RICORD and BIMCV name the patient, the others do not.
    re.compile(r"(?:^|/)(?P<p>A\d{6}|MIDRC-RICORD-1C-\d+-\d+|sub-S\d+)[-_]"),
)


def patient_of(image: str) -> str | None:
    """The patient that a published file name tells; None where it tells none."""
    for pattern in _PATIENTS:
        if match := pattern.search(image):
            return match["p"]
    return None


def by_image(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows of each image together, in order of first appearance (run lengths take several)."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.image, []).append(row)
    yield from grouped.items()
