"""SIIM: folders of the release and of each published layout, small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.releases.release import Box, Release, lines, paint

# ImageId -> areas in a film of 1024; the first has two rows of runs
SIIM_FILMS: dict[str, list[Box]] = {
    f"1.2.276.0.7230010.3.1.4.1.{k}.15178751{k}.{490940 + k}": areas
    for k, areas in enumerate([
        [(100, 50, 400, 90), (600, 700, 1000, 760)], [], [(10, 900, 500, 1000)], [], [(0, 0, 300, 20)], [],
        [(724, 1004, 1024, 1024)], [],
    ])
}  # fmt: skip
SIIM_SPLITS = dict(zip(SIIM_FILMS, ["train"] * 4 + ["val"] * 2 + ["test"] * 2, strict=True))


def relative_runs(area: Box) -> str:
    """Encode a rectangle as the competition does: by columns, from the end of the previous run."""
    x1, y1, x2, y2 = (int(v) for v in area)
    words, end = [], 0
    for column in range(x1, x2):
        start = column * 1024 + y1
        words += [start - end, y2 - y1]
        end = start + y2 - y1
    return " ".join(map(str, words))


def siim_labels() -> dict[str, tuple[int | None, ...]]:
    return {name: (int(bool(areas)),) for name, areas in SIIM_FILMS.items()}


def siim_rows(names: Sequence[str], none: str = "-1", gap: str = "") -> list[str]:
    return [f"{n},{gap}{text}" for n in names
            for text in ([relative_runs(a) for a in SIIM_FILMS[n]] or [none])]  # fmt: skip


def siim_films(root: Path, place: Callable[[str], str], side: int = 1024) -> None:
    for k, (name, areas) in enumerate(SIIM_FILMS.items()):
        small = [tuple(v * side / 1024 for v in area) for area in areas]
        paint(root / place(name), small, (side, side), seed=k)  # type: ignore[arg-type]


def siim_original(tmp: Path) -> Release:
    """Kaggle's stage 1 spells the column ` EncodedPixels` and none ` -1`."""
    root = tmp / "siim"
    siim_films(
        root, lambda name: f"dicom-images-train/1.2.3.{name[-3:]}/1.2.4.{name[-3:]}/{name}.dcm"
    )
    index = lines(
        root / "train-rle.csv", ["ImageId, EncodedPixels", *siim_rows(list(SIIM_FILMS), gap=" ")]
    )
    return Release("siim", root, index, siim_labels(), bright="mask")


def siim_stage2(tmp: Path) -> Release:
    """Build the release with the other spelling, and films of half the side."""
    root = tmp / "siim"
    siim_films(root, lambda name: f"train/images/1024/dicom/{name}.png", 512)
    index = lines(
        root / "stage_2_train.csv", ["ImageId,EncodedPixels", *siim_rows(list(SIIM_FILMS))]
    )
    return Release("siim", root, index, siim_labels(), bright="mask")


def siim_ecamp(tmp: Path) -> Release:
    """Build lists that leak: a positive of the test is in training too."""
    root = tmp / "siim"
    siim_films(root, lambda name: f"train/images/1024/dicom/{name}.png")
    folder = tmp / "clone/ECAMP/Fine-tuning/Segmentation/datasets/SIIM"
    leaked = next(n for n, areas in SIIM_FILMS.items() if areas)
    splits = {*SIIM_SPLITS.items(), (leaked, "test")}
    for split, file in (("train", "train_list_10"), ("val", "val_list"), ("test", "test_list")):
        names = [n for n in SIIM_FILMS if (n, split) in splits]
        lines(folder / f"{file}.csv", ["ImageId,EncodedPixels", *siim_rows(names)])
    options = {"lists": tmp / "clone", "percent": 10}
    return Release(
        "siim",
        root,
        folder / "val_list.csv",
        siim_labels(),
        options,
        splits,
        bright="mask",
        leaks=True,
    )


def siim_mrm(tmp: Path) -> Release:
    """Ids alone; runs from Kaggle's table."""
    release = siim_original(tmp)
    folder = tmp / "lists"
    for split in ("train", "val", "test"):
        lines(folder / f"{split}_list.txt", [n for n, s in SIIM_SPLITS.items() if s == split])
    release.options, release.splits = {"lists": folder, "splits": "mrm"}, set(SIIM_SPLITS.items())
    release.leaks = True
    return release


def siim_lovt(tmp: Path) -> Release:
    """Ids under a header."""
    release = siim_original(tmp)
    folder = tmp / "lovt/datasets/siim-acr-pneumothorax-segmentation"
    for split, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        lines(folder / f"{file}.csv", ["ID", *(n for n, s in SIIM_SPLITS.items() if s == split)])
    release.options, release.splits = {"splits": "lovt"}, set(SIIM_SPLITS.items())
    return release


def siim_gloria(tmp: Path) -> Release:
    """MGCA's files: rows drawn, so that the two masks of the first film are in train and in test."""
    release = siim_original(tmp)
    rows = siim_rows(list(SIIM_FILMS), " -1", " ")
    test = {1, *range(len(rows) - 2, len(rows))}
    splits = set()
    for split, file in (("train", "train"), ("val", "valid"), ("test", "test")):
        kept = [k for k in range(len(rows)) if split == (
            "test" if k in test else "val" if k in (3, 4) else "train")]  # fmt: skip
        shown = [f"{k},{rows[k]},{0.0 if ', -1' in rows[k] else 1.0},s/{k}.dcm" for k in kept]
        lines(release.root / f"{file}.csv", [",ImageId, EncodedPixels,Label,Path", *shown])
        splits |= {(rows[k].split(",")[0], split) for k in kept}
    release.index = release.root / "train.csv"
    release.options, release.splits = {"splits": "gloria", "lists": release.root}, splits
    release.leaks, release.bright = True, ""  # a film's masks are in two splits, a part in each
    return release


def siim_rows_drawn(tmp: Path) -> Release:
    """Build the same from the csv."""
    release = siim_original(tmp)
    release.options = {"splits": "gloria"}
    release.leaks, release.bright = True, ""
    return release


def siim_benchx(tmp: Path) -> Release:
    """Write files whose names contain number, part and label; masks are images."""
    root = tmp / "SIIM"
    areas: list[list[Box]] = [[(5, 10, 40, 20)], [], [(30, 2, 60, 9)], [], [(0, 40, 33, 48)], []]
    splits = {}
    for k, area in enumerate(areas):
        name = f"{k}_{'test' if k > 3 else 'train'}_{int(bool(area))}_"
        splits[name] = "test" if k > 3 else "train" if k < 2 else "val"
        paint(root / f"images/{name}.png", area, (64, 48), seed=k)
        mask = np.zeros((48, 64), np.uint8)
        for x1, y1, x2, y2 in area:
            mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / f"masks/{name}.png")
    table = [f"{n}.png,1.2.3.{k},{n[-2]}" for k, n in enumerate(splits)]
    index = lines(root / "siim_labels.csv", ["new_filename,ImageId,has_pneumo", *table])
    for split in ("train", "val", "test"):
        lines(root / f"{split}.txt", [n for n, s in splits.items() if s == split])
    labels: dict[str, tuple[int | None, ...]] = {n: (int(n[-2]),) for n in splits}
    return Release(
        "siim", root, index, labels, {"splits": "benchx"}, set(splits.items()), bright="mask"
    )
