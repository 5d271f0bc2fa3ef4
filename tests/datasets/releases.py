"""Folders in the layouts of the public chest sets, made small; every truth is also painted into the film.

What a reader gets can thus be held against pixels: a finding is bright (220) on dark (40), and neither
boxes nor masks are symmetric, so that swapped axes show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

DARK, BRIGHT = 40, 220
Box = tuple[float, float, float, float]


@dataclass
class Release:
    """A folder, how to name it, and what must come out of it.

    Attributes:
        index: A file whose content decides records. labels, boxes: By record id.
        splits: By record id, or (id, split) pairs; None where a hash decides.
        bright: Films show their truth: `mask`, `boxes` or neither.
    """

    name: str
    root: Path
    index: Path
    labels: dict[str, tuple[int | None, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    splits: set[tuple[str, str]] | None = None
    boxes: dict[str, list[Box]] | None = None
    bright: str = ""
    leaks: bool = False

    @property
    def ref(self) -> str:
        """One-line form."""
        options = {"root": self.root, **self.options}
        return f"{self.name}?" + "&".join(f"{key}={value}" for key, value in options.items())


def paint(
    path: Path, areas: Sequence[Box] = (), size: tuple[int, int] = (48, 40), seed: int = 0
) -> None:
    """Write a film of (width, height); areas (x1, y1, x2, y2) in its pixels are bright."""
    pixels = np.full((size[1], size[0]), DARK, np.uint8)
    pixels[0, : seed % size[0] + 1] = 1 + seed % 30  # no two films are alike
    for x1, y1, x2, y2 in areas:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = BRIGHT
    pixels[0, -1] = 255  # a white corner, so that DICOM's range is the same in each film
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        write_dicom(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def write_dicom(path: Path, pixels: np.ndarray, **tags: Any) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[path.stem])
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientName = "Doe^Jane"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path)


def lines(path: Path, rows: Sequence[str], end: str = "\n", bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((("\ufeff" if bom else "") + end.join(rows) + end).encode())
    return path


# --- ChestX-ray14 -------------------------------------------------------------------------------

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
    """The table of 2017 ends its header and its rows in a comma; that of 2020 does not."""
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
    """The clone beside the images; films lie in images_001/images/, the lists leave that level out."""
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
    """Ids alone beside the images; the labels come from the table."""
    root = tmp / "NIH_Chest_Xray"
    nih_films(root, lambda _: "images")
    table = nih_table(root, "2020")
    for split in ("train", "val", "test"):
        lines(root / f"{split}.txt", [n for n, (_, s) in NIH_FILMS.items() if s == split])
    return Release("chestxray14", root, table, nih_labels(), {"protocol": "mrm"}, nih_splits())


def nih_official_lists(tmp: Path) -> Release:
    """Other names of the three files, the same rows."""
    root, labels = tmp / "NIH", nih_labels()
    nih_films(root, lambda _: "images")
    folder = tmp / "dataset"
    nih_lists(folder, lambda _, n: n + " " + " ".join(map(str, labels[n])))
    for path, split in zip(sorted(folder.iterdir()), ("test", "train", "val"), strict=True):
        path.rename(folder / f"Xray14_{split}_official.txt")
    options = {"protocol": "official-lists", "lists": tmp}
    return Release(
        "chestxray14", root, folder / "Xray14_val_official.txt", labels, options, nih_splits()
    )


def nih_splits() -> set[tuple[str, str]]:
    return {(name, split) for name, (_, split) in NIH_FILMS.items()}


# --- CheXpert -----------------------------------------------------------------------------------

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
    """root is the folder around CheXpert-v1.0-small, whose name stands in Path too."""
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
    return Release("chexpert", release.root, home / "train_split.csv", labels, {"protocol": "mgca"},
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


# --- RSNA ---------------------------------------------------------------------------------------

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
    release.options = {"protocol": "mgca-det"}
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
    options = {"lists": tmp / "clone", "protocol": "mrm-cls"}
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
    return Release("rsna", root, table, rsna_labels(), {"protocol": "benchx"}, set(RSNA_SPLITS.items()),
                   RSNA_FILMS, "mask")  # fmt: skip


def rsna_gloria(tmp: Path) -> Release:
    """Drawn from the csv as GLoRIA does."""
    release = rsna_original(tmp)
    release.options = {"protocol": "gloria-cls"}
    return release


def rsna_mgca_cls(tmp: Path) -> Release:
    """MGCA's own files beside the csv: corners as a list, nothing where there is none."""
    release = rsna_original(tmp)
    for split in ("train", "val", "test"):
        rows = [f'{n},"{[list(b) for b in RSNA_FILMS[n]]}",1' if RSNA_FILMS[n] else f"{n},,0"
                for n, s in RSNA_SPLITS.items() if s == split]  # fmt: skip
        lines(release.root / f"{split}.csv", ["patientId,bbox,Target", *rows])
    release.index = release.root / "val.csv"
    release.options = {"protocol": "gloria-cls", "lists": "auto"}
    release.splits = set(RSNA_SPLITS.items())
    return release


def rsna_lovt(tmp: Path) -> Release:
    """x;y;width;height, boxes joined by bars, in a clone beside the images."""
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
    return Release("rsna", root, folder / "test.csv", rsna_labels(), {"protocol": "lovt"},
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
    return Release("rsna", root, index, labels, {"protocol": "maco-det", "lists": tmp / "MaCo"},
                   {(n, "test") for n in films}, films, "mask")  # fmt: skip


# --- SIIM ---------------------------------------------------------------------------------------

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
    """Runs of one rectangle as the competition counts them: column by column, from the end of the last."""
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
    """The other spelling, and films of half the side."""
    root = tmp / "siim"
    siim_films(root, lambda name: f"train/images/1024/dicom/{name}.png", 512)
    index = lines(
        root / "stage_2_train.csv", ["ImageId,EncodedPixels", *siim_rows(list(SIIM_FILMS))]
    )
    return Release("siim", root, index, siim_labels(), bright="mask")


def siim_ecamp(tmp: Path) -> Release:
    """The lists leak: a positive of the test is in training too."""
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
    release.options, release.splits = {"lists": folder, "protocol": "mrm"}, set(SIIM_SPLITS.items())
    release.leaks = True
    return release


def siim_lovt(tmp: Path) -> Release:
    """Ids under a header."""
    release = siim_original(tmp)
    folder = tmp / "lovt/datasets/siim-acr-pneumothorax-segmentation"
    for split, file in (("train", "train"), ("val", "validation"), ("test", "test")):
        lines(folder / f"{file}.csv", ["ID", *(n for n, s in SIIM_SPLITS.items() if s == split)])
    release.options, release.splits = {"protocol": "lovt"}, set(SIIM_SPLITS.items())
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
    release.options, release.splits = {"protocol": "gloria", "lists": release.root}, splits
    release.leaks, release.bright = True, ""  # a film's masks are in two splits, a part in each
    return release


def siim_rows_drawn(tmp: Path) -> Release:
    """The same from the csv."""
    release = siim_original(tmp)
    release.options = {"protocol": "gloria"}
    release.leaks, release.bright = True, ""
    return release


def siim_benchx(tmp: Path) -> Release:
    """Names tell number, part and label; masks are images."""
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
        "siim", root, index, labels, {"protocol": "benchx"}, set(splits.items()), bright="mask"
    )


# --- COVIDx -------------------------------------------------------------------------------------

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
    release.options = {"protocol": "mgca", "lists": "auto"}
    return release


def covidx_mgca_drawn(tmp: Path) -> Release:
    """The same from the index of 9A."""
    release = covidx_original(tmp)
    release.options, release.leaks = {"protocol": "mgca"}, True
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
    return Release("covidx", root, root / "train.txt", labels, {"protocol": "cxr-4"}, splits)


# --- Object-CXR, MedMNIST -----------------------------------------------------------------------


def object_cxr(tmp: Path) -> Release:
    """A rectangle, an ellipse by its box, a polygon; nothing."""
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


RELEASES: dict[str, Callable[[Path], Release]] = {
    "chestxray14 original": nih_original,
    "chestxray14 ECAMP": nih_ecamp,
    "chestxray14 MRM": nih_mrm,
    "chestxray14 BenchX": nih_benchx,
    "chestxray14 official lists": nih_official_lists,
    "chexpert original": chexpert_original,
    "chexpert ECAMP": chexpert_ecamp,
    "chexpert MRM": chexpert_mrm,
    "chexpert MGCA": chexpert_mgca,
    "rsna original": rsna_original,
    "rsna MGCA": rsna_mgca,
    "rsna ECAMP det": rsna_det,
    "rsna ECAMP cls": rsna_cls,
    "rsna MRM": rsna_mrm,
    "rsna BenchX": rsna_benchx,
    "rsna GLoRIA": rsna_gloria,
    "rsna MGCA cls": rsna_mgca_cls,
    "rsna LoVT": rsna_lovt,
    "rsna MaCo": rsna_maco,
    "siim original": siim_original,
    "siim stage 2": siim_stage2,
    "siim ECAMP": siim_ecamp,
    "siim MRM": siim_mrm,
    "siim BenchX": siim_benchx,
    "siim LoVT": siim_lovt,
    "siim GLoRIA": siim_gloria,
    "siim GLoRIA drawn": siim_rows_drawn,
    "covidx original": covidx_original,
    "covidx ECAMP": covidx_ecamp,
    "covidx MGCA": covidx_mgca,
    "covidx MGCA drawn": covidx_mgca_drawn,
    "covidx CXR-4": covidx_cxr4,
    "object-cxr": object_cxr,
    "object-cxr LoVT": object_cxr_lovt,
    "pneumoniamnist": lambda tmp: medmnist(tmp, "pneumoniamnist", 28),
    "chestmnist": lambda tmp: medmnist(tmp, "chestmnist", 64),
    "retinamnist": lambda tmp: medmnist(tmp, "retinamnist", 28),
}
