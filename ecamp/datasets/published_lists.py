"""Published list files: finds and reads those of ECAMP, MRM, MGCA, BenchX and LoVT unchanged.

A folder contains one file per split and fraction (`train_list_10.txt`, `val_list.csv`, ...); the form of
a file is recognised from its first lines:

| form | row |
| --- | --- |
| labels | `images_006/00011997_000.png 0 0 1 ...`: path and integers, any white space |
| ids | `00011997_000.png`, one per line |
| covidx | `patient file class source` |
| boxes | csv `image_path,bbox`: `"[[x1, y1, x2, y2], ...]"`, all zeros = none; MGCA's `patientId,bbox,Target` |
| boxes | csv `ID,boxes,classes` of LoVT: `x;y;width;height|...` |
| coco | json, as written by Detectron2 (`rsna_test_coco_format.json`) |
| rle | csv `ImageId,EncodedPixels` (any spaces), several rows per image, `-1` = none |
| pairs | csv `img_path,mask_path` |
| chexpert | csv with `Path` and 14 findings |
| classes | csv `filename,class,labels` of MGCA |
| table | any other csv with an id or path column |
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecamp.errors import DataError, MissingError
from ecamp.io.coco import read_coco
from ecamp.io.folders import describe_folder
from ecamp.io.table import STRICT, BadRows, open_table

# Names of clones of the authors' repositories.
CLONES = ("ECAMP", "MRM-pytorch", "MaCo", "BenchX", "BenchmarkTransferLearning", "lovt", "MGCA")

# Names of list files; the number is the percentage of a label fraction.
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
class ListRow:
    """One row of a list.

    Attributes:
        image: The path or id, as written.
        patient: From the name or a column; None if neither has it.
        labels: Integers, or None.
        boxes: (x1, y1, x2, y2), or None if the form has none.
        rle: Encoded runs, or None; "" = an image known to be empty.
        line: Line in the file, from 1.
        word: Name of the class in COVIDx.
        mask: Path of the mask image, as written; None if the form has none.
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
    """One list file.

    Attributes:
        path: The file.
        split: train, val or test.
        percent: Of a training fraction; 100 for the whole list.
        form: As in the table above.
        rows: Its rows.
    """

    path: Path
    split: str
    percent: int
    form: str
    rows: tuple[ListRow, ...]

    @property
    def name(self) -> str:
        """Name in messages: `train_10`, `val` ..."""
        return self.split if self.percent == 100 else f"{self.split}_{self.percent}"


def read_lists(folder: Path, bad: BadRows = STRICT) -> list[PublishedList]:
    """Read all lists of a folder, training first, small fractions first.

    Raises:
        MissingError: No folder, or no list in it; names the expected files and those that are there.
        DataError: A row that cannot be read; names file and line.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder.", "Name the folder that contains the lists.")
    lists = [read_list(path, *name, bad) for path, name in list_files(folder)]
    if not lists:
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise MissingError(
            f"{folder}: no list.",
            f"Lists have names like train_list.txt, val_list.csv or test.csv; found {names}.",
        )
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(lists, key=lambda lst: (order[lst.split], lst.percent, lst.path.name))


def list_files(folder: Path) -> Iterator[tuple[Path, tuple[str, int]]]:
    """Find files with names of lists, with split and percentage; opens no file."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (name := _list_name(path)) is not None:
            yield path, name


def _list_name(path: Path) -> tuple[str, int] | None:
    """Parse split and percentage from a file name; None if it is not the name of a list."""
    match = _NAME.fullmatch(path.stem)
    suffix = path.suffix.lower()
    suffixes = (".json",) if path.stem.endswith("_coco_format") else (".txt", ".csv", ".tsv")
    if not path.is_file() or suffix not in suffixes or match is None:
        return None
    if match["rest"]:  # test_list_600.txt: not one of the lists used in evaluations
        return None
    return _SPLITS[match["split"].lower()], int(match["percent"] or 100)


def read_list(path: Path, split: str, percent: int = 100, bad: BadRows = STRICT) -> PublishedList:
    """Read one list of any form.

    Args:
        split, percent: As in `PublishedList`.
        bad: Policy for rows that cannot be read.

    Raises:
        DataError: A row that cannot be read, or no row; names file and line.
    """
    readers = {".txt": _plain, ".json": _coco}
    form, rows = readers.get(path.suffix.lower(), _table)(path, bad)
    if not rows:
        raise DataError(f"{path}: no rows.", "The list is empty; download it again.")
    return PublishedList(path, split, percent, form, tuple(rows))


def _plain(path: Path, bad: BadRows) -> tuple[str, list[ListRow]]:
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
        raise DataError(
            f"{path} line {start}: unknown form: {' '.join(first)[:80]}",
            "Rows are a path and integers, ids only, or patient file class source.",
        )
    rows = []
    for number, words in lines:
        location = f"{path} line {number}"
        with bad:
            if form == "covidx":
                rows.append(_covidx(words, number, location))
                continue
            if len(words) != len(first) or not all(_INTEGER.fullmatch(w) for w in words[1:]):
                raise DataError(
                    f"{location}: {len(words) - 1} labels, line {start} has {len(first) - 1}: "
                    f"{' '.join(words)[:80]}",
                    "Every row is a path followed by one integer per class.",
                )
            labels = tuple(int(word) for word in words[1:]) or None
            rows.append(ListRow(words[0], patient_of(words[0]), labels, None, None, number))
    return form, rows


def _covidx(words: list[str], number: int, location: str) -> ListRow:
    """Parse `patient file class source`; only the file name may contain spaces."""
    if len(words) < 4:
        raise DataError(
            f"{location}: {len(words)} words, expected patient file class source.",
            "Complete the row, or use on_bad_row=skip.",
        )
    return ListRow(" ".join(words[1:-2]), words[0], None, None, None, number, words[-2])


def _table(path: Path, bad: BadRows) -> tuple[str, list[ListRow]]:
    with open_table(path, bad) as (header, values):
        lower = [name.lower() for name in header]

        def column(*names: str) -> int | None:
            return next((lower.index(name) for name in names if name in lower), None)

        image = column(*ID_COLUMNS)
        if image is None:
            raise DataError(
                f"{path}: no column with the name of the image.",
                f"Expected one of {', '.join(ID_COLUMNS)}; it has {', '.join(header)[:200] or 'none'}.",
            )
        box, rle = column("bbox", "boxes"), column("encodedpixels")
        form = "boxes" if box is not None else "rle" if rle is not None else "table"
        mask = column("mask_path")
        if mask is not None:
            form = "pairs"
        if "path" in lower and "atelectasis" in lower:
            form = "chexpert"
        # Only MGCA's csv files have all three; other tables use these names with another meaning.
        word = column("class") if {"filename", "class", "labels"} <= set(lower) else None
        label = column("labels") if word is not None else None
        if word is not None:
            form = "classes"
        elif box is not None:
            label = column("target")
        # RSNA's patientId is the image, so every image is a patient of its own.
        patient_column = column(*PATIENT_COLUMNS)
        rows: list[ListRow] = []
        for line, cells in values:
            with bad:
                location = f"{path} line {line}"
                name = cells[image].strip()
                patient = (
                    patient_of(name) if patient_column is None else cells[patient_column].strip()
                )
                boxes = None if box is None else _boxes(cells[box], location)
                labels = None if label is None else (_label(cells[label], location),)
                runs = None
                if rle is not None:
                    runs = cells[rle].strip()
                    runs = "" if runs == "-1" else runs
                mask_path = cells[mask].strip() if mask is not None else None
                class_name = cells[word].strip() if word is not None else None
                rows.append(
                    ListRow(name, patient or None, labels, boxes, runs, line, class_name, mask_path)
                )
        return form, rows


def _coco(path: Path, bad: BadRows) -> tuple[str, list[ListRow]]:
    """Read images of a COCO file with boxes of all categories; lines are indices of images, from 1."""
    rows = []
    for number, (name, (boxes, _)) in enumerate(read_coco(path).by_name.items(), 1):
        corners = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist())
        rows.append(ListRow(name, patient_of(name), None, corners, None, number))
    return "coco", rows


def _label(text: str, location: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        raise DataError(f"{location}: '{text.strip()}' is not a label.", "Labels are integers.")
    return int(text)


def _boxes(text: str, location: str) -> tuple[tuple[float, float, float, float], ...]:
    """Parse `[[x1, y1, x2, y2], ...]` or `x;y;width;height|...`; nothing or a box of zeros = no box."""
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
            f"{location}: not a list of boxes: {text[:60]}: {error}",
            "Write [[x1, y1, x2, y2], ...] or x;y;width;height|...",
        ) from error
    return tuple((b[0], b[1], b[2], b[3]) for b in boxes if any(b))


_PATIENTS = (
    re.compile(r"(?:^|/)(?P<p>\d{8})_\d{3}\.\w+$"),  # ChestX-ray14
    re.compile(r"(?:^|/)(?P<p>patient\d+)/"),  # CheXpert
    re.compile(r"(?:^|/)(?P<p>\d+)_(?:left|right)\.\w+$", re.IGNORECASE),  # ODIR
    re.compile(r"(?:^|/)p\d\d/(?P<p>p\d{8})/"),  # MIMIC
    # COVIDx: only names from Stony Brook, RICORD and BIMCV contain the patient.
    re.compile(r"(?:^|/)(?P<p>A\d{6}|MIDRC-RICORD-1C-\d+-\d+|sub-S\d+)[-_]"),
)


def patient_of(image: str) -> str | None:
    """Parse the patient from a published file name; None if it does not contain one."""
    for pattern in _PATIENTS:
        if match := pattern.search(image):
            return match["p"]
    return None


def group_by_image(rows: Sequence[ListRow]) -> Iterator[tuple[str, list[ListRow]]]:
    """Group rows by image, in order of first appearance (run lengths take several rows)."""
    grouped: dict[str, list[ListRow]] = {}
    for row in rows:
        grouped.setdefault(row.image, []).append(row)
    yield from grouped.items()


def find_lists(
    given: str, root: Path, folders: Sequence[str], title: str,
    splits: Collection[str] = ("val", "test"),
) -> Path:  # fmt: skip
    """Find the folder with the lists of an evaluation.

    Args:
        given: A folder of lists, or a clone; `auto` searches for a clone in root, next to it, in
            `$ECAMP_LISTS` and in the working directory, and last in root itself if `folders` has `.`.
        root: Folder of the images.
        folders: Folders of the lists in clones, best first.
        title: Name of the splits, for messages.
        splits: Splits that must have a list for `auto` to accept a folder.

    Raises:
        MissingError: No lists; names the folders that were searched.
    """
    if given == "auto" and not root.is_dir():
        raise MissingError(f"{root}: no such folder.", "root names the folder of the data set.")
    if given != "auto":
        base = Path(given).expanduser()
        if not base.is_dir():
            raise MissingError(f"{base}: no such folder.", "lists names a folder, or is auto.")
        for folder in (base, *(base / name for name in folders)):
            if any(True for _ in list_files(folder)):
                return folder
        searched = str(base)
    else:
        for folder in _candidates(root, folders):
            # Two of three: ChestX-ray14's own test_list.txt alone is not a set of lists.
            if set(splits) <= {split for _, (split, _) in list_files(folder)}:
                return folder
        base, searched = root, f"{root}, next to it, in $ECAMP_LISTS or in the working directory"
    raise MissingError(
        f"{title}: no lists in {searched}; expected {', '.join(f for f in folders if f != '.')}; the "
        f"folder contains {describe_folder(base)}.",
        "Clone the authors' repository and use lists=FOLDER.",
    )


def _candidates(root: Path, folders: Sequence[str]) -> Iterator[Path]:
    variable = os.environ.get("ECAMP_LISTS")
    bases = [root, root.parent, *([Path(variable)] if variable else []), Path()]
    for base in bases:
        for clone in ("", *CLONES):
            yield from (base / clone / folder for folder in folders if folder != ".")
    if "." in folders:
        yield root
