"""COVIDx: folders of the release and of each published layout, small."""

from __future__ import annotations

from pathlib import Path

from tests.datasets.releases.release import Release, lines, paint

# patient, file, class, source; names with dots, spaces and brackets
COVIDX_TRAIN = [
    ("3", "SARS-10.1148rg.1-Fig8a-day0.jpeg", "pneumonia", "cohen"),
    ("3", "SARS-10.1148rg.1-Fig8b-day5.jpeg", "pneumonia", "cohen"),
    ("COVID1", "COVID(1).png", "COVID-19", "sirm"),
    ("A000001", "A000001-01-25-1901-NA-CHEST_AP-1-1.000000-AP-1.jpg", "COVID-19", "stonybrook"),
    ("A000001", "A000001-01-26-1901-NA-CHEST_AP-2-1.000000-AP-2.jpg", "COVID-19", "stonybrook"),
    ("r1", "CR.1.2.840.1.20200329.JPG", "COVID-19", "rsna"),
    ("n1", "00000000-5cd6-44eb-bc82-000000000001.png", "normal", "rsna"),
]  # fmt: skip
COVIDX_TEST = [
    ("000000-000001", "MIDRC-RICORD-1C-000000-000001-1-0.png", "COVID-19", "ricord"),
    ("n2", "1 (2).jpg", "normal", "actmed"),
    ("n3", "x.y.z.png", "pneumonia", "rsna"),
]
CLASSES = ("normal", "pneumonia", "COVID-19")


def covidx_labels(train: str = "train") -> dict[str, tuple[int | None, ...]]:
    rows = [(f"{train}/{r[1]}", r[2]) for r in COVIDX_TRAIN] + [
        (f"test/{r[1]}", r[2]) for r in COVIDX_TEST
    ]
    return {path: tuple(int(word == name) for name in CLASSES) for path, word in rows}


def covidx_films(root: Path) -> None:
    for k, path in enumerate(covidx_labels()):
        paint(root / path, seed=k)


def covidx_original(tmp: Path) -> Release:
    root = tmp / "COVIDx"
    covidx_films(root)
    index = lines(root / "train_COVIDx9A.txt", [" ".join(row) for row in COVIDX_TRAIN])
    lines(root / "test_COVIDx9A.txt", [" ".join(row) for row in COVIDX_TEST], "\r\n")
    return Release("covidx", root, index, covidx_labels())


def covidx_ecamp(tmp: Path) -> Release:
    root, labels = tmp / "COVIDx", covidx_labels()
    covidx_films(root)
    # No spaces in the names of the lists: their rows could not hold them.
    labels = {path: values for path, values in labels.items() if " " not in path}
    folder = tmp / "lists"
    splits = {}
    for k, path in enumerate(labels):
        splits[path] = "test" if path.startswith("test") else ("train", "val")[k % 2]
    for split in ("train", "val", "test"):
        rows = [f"{p} {labels[p].index(1)}" for p, s in splits.items() if s == split]
        lines(folder / f"{split}_list.txt", rows)
    return Release("covidx", root, folder / "train_list.txt", labels, {"lists": folder},
                   set(splits.items()), leaks=True)  # fmt: skip


def covidx_mgca(tmp: Path) -> Release:
    """File names alone; rows of train.txt and valid.csv are both in train/."""
    release = covidx_ecamp(tmp)
    assert release.splits is not None
    for split, file in (("train", "train"), ("val", "valid"), ("test", "test")):
        rows = []
        for path in sorted(p for p, s in release.splits if s == split):
            k = release.labels[path].index(1)
            rows.append(f"{path.split('/')[1]},{CLASSES[k]},{k}")
        lines(release.root / f"{file}.csv", ["filename,class,labels", *rows])
    release.index = release.root / "valid.csv"
    release.options = {"splits": "mgca", "lists": "auto"}
    return release


def covidx_mgca_drawn(tmp: Path) -> Release:
    """Build the same from the index of 9A."""
    release = covidx_original(tmp)
    release.options, release.leaks = {"splits": "mgca"}, True
    return release


def covidx_cxr4(tmp: Path) -> Release:
    root = tmp / "COVIDx"
    labels: dict[str, tuple[int | None, ...]] = {}
    for k, split in enumerate(("train", "val", "test")):
        rows = []
        for n, word in enumerate(("positive", "negative")):
            file = f"p{k}.{n}.1.png"
            paint(root / split / file, seed=10 * k + n)
            rows.append(f"p{k} {file} {word} cohen")
            labels[f"{split}/{file}"] = (n, 1 - n)
        lines(root / f"{split}.txt", rows)
    splits = {(path, path.split("/")[0]) for path in labels}
    return Release("covidx", root, root / "train.txt", labels, {"splits": "cxr-4"}, splits)
