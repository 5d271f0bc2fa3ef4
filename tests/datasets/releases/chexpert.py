"""CheXpert: folders of the release and of each published layout, small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.datasets.releases.release import Release, lines, paint

CHEXPERT = [
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
    "Fracture", "Support Devices",
]  # fmt: skip
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# film -> values of the five as the csv has them; the published map makes ones of -1 in the 1st, 4th, 5th
CHEXPERT_FILMS = {
    "train/patient00001/study1/view1_frontal.jpg": ("-1.0", "-1.0", "-1.0", "-1.0", "-1.0"),
    "train/patient00001/study1/view2_lateral.jpg": ("-1.0", "-1.0", "-1.0", "-1.0", "-1.0"),
    "train/patient00002/study2/view1_frontal.jpg": ("", "1.0", "0.0", "", "1.0"),
    "train/patient00003/study1/view1_frontal.jpg": ("1.0", "", "", "0.0", ""),
    "train/patient00004/study1/view1_frontal.jpg": ("", "", "", "", ""),
    "valid/patient64541/study1/view1_frontal.jpg": ("0.0", "1.0", "0.0", "0.0", "0.0"),
    "valid/patient64541/study1/view2_lateral.jpg": ("0.0", "1.0", "0.0", "0.0", "0.0"),
    "test/patient64741/study1/view1_frontal.jpg": ("0", "1", "0", "0", "1"),
    "test/patient64742/study1/view1_frontal.jpg": ("1", "0", "0", "0", "0"),
}
PUBLISHED = (1, 0, 0, 1, 1)


def chexpert_labels(
    *parts: str, uncertain: Sequence[int | None] = PUBLISHED
) -> dict[str, tuple[int | None, ...]]:
    words = {"": 0, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
    return {
        film: tuple(words.get(v, u) for v, u in zip(values, uncertain, strict=True))
        for film, values in CHEXPERT_FILMS.items() if film.startswith(parts)
    }  # fmt: skip


def chexpert_films(root: Path) -> None:
    for k, film in enumerate(CHEXPERT_FILMS):
        paint(root / film, seed=k)


def chexpert_original(tmp: Path) -> Release:
    """root is the folder around CheXpert-v1.0-small, whose name appears in Path too."""
    root = tmp / "data"
    home = root / "CheXpert-v1.0-small"
    chexpert_films(home)
    for part, prefix in (
        ("train", "CheXpert-v1.0-small/"),
        ("valid", "CheXpert-v1.0-small/"),
        ("test", ""),
    ):
        shown = "Path,Sex,Age,Frontal/Lateral,AP/PA," if part != "test" else "Path,"
        rows = []
        for film, five in CHEXPERT_FILMS.items():
            if film.startswith(part):
                values = dict(zip(FIVE, five, strict=True))
                about = "Female,68,Frontal,AP," if part != "test" else ""
                rows.append(
                    f"{prefix}{film},{about}" + ",".join(values.get(name, "") for name in CHEXPERT)
                )
        lines(home / f"{part}.csv", [shown + ",".join(CHEXPERT), *rows])
    return Release("chexpert", root, home / "train.csv", chexpert_labels("train", "test"))


def chexpert_ecamp(tmp: Path) -> Release:
    """Rows end in a space, and the validation list is the test list."""
    root, labels = tmp / "CheXpert", chexpert_labels("train", "valid")
    chexpert_films(root)
    folder = tmp / "lists"
    train = [f"{f} {' '.join(map(str, v))} " for f, v in labels.items() if f.startswith("train")]
    test = [f"{f} {' '.join(map(str, v))}" for f, v in labels.items() if f.startswith("valid")]
    index = lines(folder / "train_list.txt", train)
    lines(folder / "val_list.txt", test)
    lines(folder / "test_list.txt", test)
    lines(folder / "test_list_600.txt", test)
    splits = {
        (f, s) for f in labels for s in (["train"] if f.startswith("train") else ["val", "test"])
    }
    return Release("chexpert", root, index, labels, {"lists": folder}, splits, leaks=True)


def chexpert_mgca(tmp: Path) -> Release:
    """As MGCA's script leaves them: rows of train.csv behind their old number, both views in them."""
    release = chexpert_original(tmp)
    home = release.index.parent
    header, *rows = release.index.read_text().splitlines()
    for file, kept in (("train_split.csv", rows[:-1]), ("valid_split.csv", rows[-2:])):
        lines(home / file, [f",{header}", *(f"{k},{row}" for k, row in enumerate(kept))])
    labels = {f: v for f, v in chexpert_labels("train", "valid").items() if "frontal" in f}
    films = [f for f in labels if f.startswith("train")]
    splits = {(f, "train") for f in films[:-1]} | {(f, "val") for f in films[-2:]}
    splits |= {(f, "test") for f in labels if f.startswith("valid")}
    return Release("chexpert", release.root, home / "train_split.csv", labels, {"splits": "mgca"},
                   splits, leaks=True)  # fmt: skip


def chexpert_mrm(tmp: Path) -> Release:
    release = chexpert_ecamp(tmp)
    for path in (tmp / "lists").glob("*.txt"):
        path.write_text(
            "".join(f"CheXpert-v1.0-small/{row}\n" for row in path.read_text().splitlines())
        )
    release.root.rename(tmp / "CheXpert-v1.0-small")
    release.root = tmp
    return release
