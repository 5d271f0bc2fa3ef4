"""ChestX-ray14: folders of the release and of each published layout, small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.datasets.releases.release import Release, lines, paint

NIH = [
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
]  # fmt: skip
# name -> findings, list
NIH_FILMS = {
    "00000001_000.png": ("Cardiomegaly", "train"),
    "00000001_001.png": ("Cardiomegaly|Emphysema", "train"),
    "00000002_000.png": ("No Finding", "train"),
    "00000003_000.png": ("Hernia|Pleural_Thickening|Atelectasis", "val"),
    "00000003_001.png": ("No Finding", "val"),
    "00000004_000.png": ("Mass", "test"),
    "00000005_000.png": ("No Finding", "test"),
    "00000005_001.png": ("Effusion|Mass", "test"),
}


def nih_labels() -> dict[str, tuple[int | None, ...]]:
    return {
        name: tuple(int(word in findings.split("|")) for word in NIH)
        for name, (findings, _) in NIH_FILMS.items()
    }


def nih_table(root: Path, version: str = "2017") -> Path:
    """Write the table; that of 2017 ends its header and rows in a comma, that of 2020 does not."""
    header = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
              "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")  # fmt: skip
    comma = "," if version == "2017" else ""
    rows = [
        f"{n},{f},0,{int(n[:8])},58,M,PA,2682,2749,0.143,0.143{comma}"
        for n, (f, _) in NIH_FILMS.items()
    ]
    name = "Data_Entry_2017.csv" if version == "2017" else "Data_Entry_2017_v2020.csv"
    return lines(root / name, [header + comma, *rows], "\r\n", bom=version == "2017")


def nih_films(root: Path, folder: Callable[[int], str]) -> None:
    for k, name in enumerate(NIH_FILMS):
        paint(root / folder(k) / name, seed=k)


def nih_original(tmp: Path) -> Release:
    root = tmp / "CXR14"
    table = nih_table(root)
    nih_films(root, lambda k: f"images_{k // 4 + 1:03}/images")
    lines(root / "train_val_list.txt", [n for n, (_, s) in NIH_FILMS.items() if s != "test"])
    lines(root / "test_list.txt", [n for n, (_, s) in NIH_FILMS.items() if s == "test"])
    return Release("chestxray14", root, table, nih_labels())


def nih_lists(folder: Path, row: Callable[[int, str], str], train: str = "train_list.txt") -> Path:
    for split, name in (("train", train), ("val", "val_list.txt"), ("test", "test_list.txt")):
        lines(
            folder / name,
            [row(k, n) for k, (n, (_, s)) in enumerate(NIH_FILMS.items()) if s == split],
        )
    return folder / train


def nih_ecamp(tmp: Path) -> Release:
    """Build a clone next to the images; films are in images_001/images/, the lists omit that level."""
    root, labels = tmp / "CXR14", nih_labels()
    nih_films(root, lambda k: f"images_{k // 4 + 1:03}/images")
    clone = tmp / "ECAMP"
    index = nih_lists(
        clone / "ECAMP/Fine-tuning/Classification/datasets/ChestX-ray14",
        lambda k, n: f"images_{k // 4 + 1:03}/{n} " + " ".join(map(str, labels[n])),
        "train_list_10.txt",
    )
    options = {"lists": clone, "percent": 10}
    return Release("chestxray14", root, index, labels, options, nih_splits())


def nih_mrm(tmp: Path) -> Release:
    root, labels = tmp / "NIH", nih_labels()
    nih_films(root, lambda _: "all_classes")
    clone = tmp / "MRM-pytorch"
    index = nih_lists(
        clone / "DatasetsSplits/NIH_ChestX-ray",
        lambda _, n: n + " " + " ".join(map(str, labels[n])),
    )
    return Release("chestxray14", root, index, labels, {"lists": "auto"}, nih_splits())


def nih_benchx(tmp: Path) -> Release:
    """Write lists of ids next to the images; the labels come from the table."""
    root = tmp / "NIH_Chest_Xray"
    nih_films(root, lambda _: "images")
    table = nih_table(root, "2020")
    for split in ("train", "val", "test"):
        lines(root / f"{split}.txt", [n for n, (_, s) in NIH_FILMS.items() if s == split])
    return Release("chestxray14", root, table, nih_labels(), {"splits": "mrm"}, nih_splits())


def nih_official_lists(tmp: Path) -> Release:
    """Other names of the three files, the same rows."""
    root, labels = tmp / "NIH", nih_labels()
    nih_films(root, lambda _: "images")
    folder = tmp / "dataset"
    nih_lists(folder, lambda _, n: n + " " + " ".join(map(str, labels[n])))
    for path, split in zip(sorted(folder.iterdir()), ("test", "train", "val"), strict=True):
        path.rename(folder / f"Xray14_{split}_official.txt")
    options = {"splits": "official-lists", "lists": tmp}
    return Release(
        "chestxray14", root, folder / "Xray14_val_official.txt", labels, options, nih_splits()
    )


def nih_splits() -> set[tuple[str, str]]:
    return {(name, split) for name, (_, split) in NIH_FILMS.items()}
