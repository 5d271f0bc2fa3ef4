"""Object-CXR and MedMNIST: folders of the release and of each published layout, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.datasets.releases.release import Release, lines, paint


def object_cxr(tmp: Path) -> Release:
    """Build a release with a rectangle, an ellipse by its box, a polygon, and nothing."""
    root = tmp / "object-CXR"
    shown = {
        "train/00001.jpg": ("0 4 6 40 12", [(4, 6, 40, 12)]),
        "train/00002.jpg": ("", []),
        "train/00003.jpg": (
            "1 8 2 30 10;2 20 20 44 21 43 35 22 33",
            [(8, 2, 30, 10), (20, 20, 44, 35)],
        ),
        "train/00004.jpg": ("", []),
        "dev/08001.jpg": ("0 0 0 20 5;0 25 30 47 39", [(0, 0, 20, 5), (25, 30, 47, 39)]),
        "dev/08002.jpg": ("", []),
    }
    for k, (path, (_, boxes)) in enumerate(shown.items()):
        paint(root / path, boxes, seed=k)  # type: ignore[arg-type]
    for part in ("train", "dev"):
        rows = [f"{p.split('/')[1]},{text}" for p, (text, _) in shown.items() if p.startswith(part)]
        lines(root / f"{part}.csv", ["image_name,annotation", *rows])
    boxes = {path[-9:-4]: [tuple(map(float, b)) for b in bs] for path, (_, bs) in shown.items()}
    labels: dict[str, tuple[int | None, ...]] = {name: (int(bool(b)),) for name, b in boxes.items()}
    return Release("object-cxr", root, root / "train.csv", labels, boxes=boxes, bright="boxes")  # type: ignore[arg-type]


def object_cxr_lovt(tmp: Path) -> Release:
    """x;y;width;height in pixels of the film; dev is the test."""
    release = object_cxr(tmp)
    assert release.boxes is not None
    splits = {name: "test" if name.startswith("08") else "train" for name in release.boxes}
    splits["00004"] = "val"
    folder = tmp / "lovt/datasets/object-CXR"
    for split, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for name in (n for n, s in splits.items() if s == split):
            boxes = [[int(v) for v in box] for box in release.boxes[name]]
            shown = "|".join(f"{x1};{y1};{x2 - x1};{y2 - y1}" for x1, y1, x2, y2 in boxes)
            rows.append(f"{name},{shown},{'|'.join('1' for _ in boxes)}")
        lines(folder / f"{file}.csv", ["ID,boxes,classes", *rows])
    release.index = folder / "train.csv"
    release.options, release.splits = {"lists": tmp / "lovt"}, set(splits.items())
    return release


def medmnist(tmp: Path, name: str, size: int) -> Release:
    rng = np.random.default_rng(5)
    counts = {"train": 6, "val": 3, "test": 3}
    colour = (3,) if name == "retinamnist" else ()
    columns, values = {"pneumoniamnist": (1, 2), "chestmnist": (14, 2), "retinamnist": (1, 5)}[name]
    arrays, labels = {}, {}
    for split, n in counts.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, size, size, *colour), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, values, (n, columns)).astype(np.uint8)
        for k, row in enumerate(arrays[f"{split}_labels"].tolist()):
            labels[f"{split}/{k}"] = (
                tuple(int(c == row[0]) for c in range(5)) if values == 5 else tuple(row)
            )
    root = tmp / "medmnist"
    root.mkdir(parents=True)
    file = root / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    np.savez_compressed(file, **arrays)
    splits = {(path, path.split("/")[0]) for path in labels}
    options = {} if size == 28 else {"size": size}
    return Release(f"medmnist/{name}", root, file, labels, options, splits)
