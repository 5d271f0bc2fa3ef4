"""RSNA: folders of the release and of each published layout, small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.datasets.releases.release import Box, Release, lines, paint

# id -> boxes x1, y1, x2, y2 in a film of 1024; wide ones, so that swapped axes show
RSNA_FILMS: dict[str, list[Box]] = {
    f"0000{k:04x}-fd4b-4d57-9cd5-7c1e5ba0{k:04x}": boxes
    for k, boxes in enumerate([
        [(64.0, 128.0, 512.0, 256.0), (640.0, 704.0, 960.0, 832.0)], [], [(128.0, 512.0, 896.0, 640.0)], [],
        [], [(0.0, 0.0, 448.0, 64.0)], [], [(576.0, 64.0, 1024.0, 192.0)], [], [], [],
        [(64.0, 896.0, 640.0, 1024.0)],
    ])
}  # fmt: skip
RSNA_SPLITS = dict(zip(RSNA_FILMS, ["train"] * 6 + ["val"] * 2 + ["test"] * 4, strict=True))


def rsna_films(root: Path, place: Callable[[str], str], side: int = 64) -> None:
    """Films smaller than the 1024 pixels that boxes are counted in."""
    for k, (name, boxes) in enumerate(RSNA_FILMS.items()):
        areas = [tuple(v * side / 1024 for v in box) for box in boxes]
        paint(root / place(name), areas, (side, side), seed=k)  # type: ignore[arg-type]


def rsna_labels() -> dict[str, tuple[int | None, ...]]:
    return {name: (int(bool(boxes)),) for name, boxes in RSNA_FILMS.items()}


def rsna_tables(root: Path) -> Path:
    rows = ["patientId,x,y,width,height,Target"]
    kinds = ["patientId,class"]
    for k, (name, boxes) in enumerate(RSNA_FILMS.items()):
        rows += [f"{name},{x1},{y1},{x2 - x1},{y2 - y1},1" for x1, y1, x2, y2 in boxes] or [
            f"{name},,,,,0"
        ]
        kind = "Lung Opacity" if boxes else ("Normal", "No Lung Opacity / Not Normal")[k % 2]
        kinds += [f"{name},{kind}"] * max(1, len(boxes))
    lines(root / "stage_2_detailed_class_info.csv", kinds)
    return lines(root / "stage_2_train_labels.csv", rows, "\r\n")


def rsna_original(tmp: Path) -> Release:
    root = tmp / "rsna"
    rsna_films(root, lambda name: f"stage_2_train_images/{name}.dcm")
    table = rsna_tables(root)
    return Release("rsna", root, table, rsna_labels(), boxes=RSNA_FILMS, bright="mask")


def rsna_mgca(tmp: Path) -> Release:
    release = rsna_original(tmp)
    release.options = {"splits": "mgca-det"}
    return release


def rsna_det(tmp: Path) -> Release:
    root = tmp / "rsna"
    rsna_films(root, lambda name: f"train_images/{name}.png")
    folder = tmp / "clone/Fine-tuning/Detection/datasets/RSNA"
    for split, file in (("train", "train_list_1"), ("val", "val_list"), ("test", "test_list")):
        rows = [
            f'train_images/{name}.png,"{[list(b) for b in boxes] or [[0.0, 0.0, 0.0, 0.0]]}"'
            for name, boxes in RSNA_FILMS.items() if RSNA_SPLITS[name] == split
        ]  # fmt: skip
        lines(folder / f"{file}.csv", ["image_path,bbox", *rows])
    options = {"lists": tmp / "clone", "percent": 1}
    return Release("rsna", root, folder / "train_list_1.csv", rsna_labels(), options,
                   set(RSNA_SPLITS.items()), RSNA_FILMS, "mask")  # fmt: skip


def rsna_cls(tmp: Path) -> Release:
    """Rows end in a space; the test images are Kaggle's test."""
    root, labels = tmp / "rsna", rsna_labels()
    place = {
        n: f"{'test' if s == 'test' else 'train'}_images/{n}.png" for n, s in RSNA_SPLITS.items()
    }
    rsna_films(root, lambda name: place[name])
    folder = tmp / "clone/Fine-tuning/Classification/datasets/RSNA"
    for split in ("train", "val", "test"):
        rows = [f"{place[n]} {labels[n][0]} " for n, s in RSNA_SPLITS.items() if s == split]
        lines(folder / f"{split}_list.txt", rows)
    options = {"lists": tmp / "clone", "splits": "mrm-cls"}
    return Release(
        "rsna", root, folder / "train_list.txt", labels, options, set(RSNA_SPLITS.items())
    )


def rsna_mrm(tmp: Path) -> Release:
    """MRM's rows name the DICOM files."""
    release = rsna_cls(tmp)
    release.options["lists"] = tmp / "clone/Fine-tuning/Classification/datasets/RSNA"
    for path in release.options["lists"].glob("*.txt"):
        text = path.read_text().replace("test_images", "stage_2_test_images")
        path.write_text(text.replace(".png", ".dcm").replace("\ntrain_", "\nstage_2_train_"))
    return release


def rsna_benchx(tmp: Path) -> Release:
    root = tmp / "RSNA"
    rsna_films(root, lambda name: f"images/{name}.png")
    table = rsna_tables(root)
    for split in ("train", "val", "test"):
        lines(root / f"{split}.txt", [n for n, s in RSNA_SPLITS.items() if s == split])
    return Release("rsna", root, table, rsna_labels(), {"splits": "benchx"}, set(RSNA_SPLITS.items()),
                   RSNA_FILMS, "mask")  # fmt: skip


def rsna_gloria(tmp: Path) -> Release:
    """Drawn from the csv as GLoRIA does."""
    release = rsna_original(tmp)
    release.options = {"splits": "gloria-cls"}
    return release


def rsna_mgca_cls(tmp: Path) -> Release:
    """Write MGCA's own files next to the csv: corners as a list, empty without a box."""
    release = rsna_original(tmp)
    for split in ("train", "val", "test"):
        rows = [f'{n},"{[list(b) for b in RSNA_FILMS[n]]}",1' if RSNA_FILMS[n] else f"{n},,0"
                for n, s in RSNA_SPLITS.items() if s == split]  # fmt: skip
        lines(release.root / f"{split}.csv", ["patientId,bbox,Target", *rows])
    release.index = release.root / "val.csv"
    release.options = {"splits": "gloria-cls", "lists": "auto"}
    release.splits = set(RSNA_SPLITS.items())
    return release


def rsna_lovt(tmp: Path) -> Release:
    """x;y;width;height, boxes joined by bars, in a clone next to the images."""
    root = tmp / "rsna"
    rsna_films(root, lambda name: f"stage_2_train_images/{name}.dcm")
    folder = tmp / "lovt/datasets/RSNA-Pneunomia-Detection"
    for split, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for name, boxes in RSNA_FILMS.items():
            if RSNA_SPLITS[name] == split:
                shown = "|".join(f"{x1};{y1};{x2 - x1};{y2 - y1}" for x1, y1, x2, y2 in boxes)
                rows.append(f"{name},{shown},{'|'.join('1' for _ in boxes)}")
        lines(folder / f"{file}.csv", ["ID,boxes,classes", *rows])
    return Release("rsna", root, folder / "test.csv", rsna_labels(), {"splits": "lovt"},
                   set(RSNA_SPLITS.items()), RSNA_FILMS, "mask")  # fmt: skip


def rsna_maco(tmp: Path) -> Release:
    """COCO json of the test, as Detectron2 writes it; films with a box alone, paths of another disk."""
    root = tmp / "rsna"
    rsna_films(root, lambda name: f"train_images/{name}.png")
    films = {n: b for n, b in RSNA_FILMS.items() if b}
    images, notes = [], []
    for k, (name, boxes) in enumerate(films.items()):
        path = f"/mnt/disk2/datasets/png_all/{name}.png"
        images.append({"id": 100 - k, "width": 1024, "height": 1024, "file_name": path})
        for x1, y1, x2, y2 in boxes:
            notes.append({
                "id": len(notes) + 1, "image_id": 100 - k, "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "category_id": 1,
                "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            })  # fmt: skip
    classes = [{"id": k, "name": name} for k, name in enumerate(("none_pneu", "pneu"))]
    index = tmp / "MaCo/detectron2/projects/ViTDet/out_valid/rsna_test_coco_format.json"
    index.parent.mkdir(parents=True)
    value = {"info": {}, "images": images, "categories": classes, "annotations": notes}
    index.write_text(json.dumps(value))
    labels: dict[str, tuple[int | None, ...]] = dict.fromkeys(films, (1,))
    return Release("rsna", root, index, labels, {"splits": "maco-det", "lists": tmp / "MaCo"},
                   {(n, "test") for n in films}, films, "mask")  # fmt: skip
