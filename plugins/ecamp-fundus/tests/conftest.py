"""Small folders in the layouts of the releases and of the published lists, with known truth."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ODIR_COLUMNS = [
    "ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus", "Left-Diagnostic Keywords",
    "Right-Diagnostic Keywords", "N", "D", "G", "C", "A", "H", "M", "O", "filepath", "labels",
    "target", "filename",
]  # fmt: skip
MURED = [
    "DR", "NORMAL", "MH", "ODC", "TSLN", "ARMD", "DN", "MYA", "BRVO", "ODP", "CRVO", "CNV", "RS",
    "ODE", "LS", "CSR", "HTR", "ASR", "CRS", "OTHER",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["ECAMP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def colour(number: int) -> tuple[int, int, int]:
    """Return a shade of orange that encodes the number."""
    return 180 + number % 60, 70 + number % 40, 10 + number % 11


def photograph(path: Path, number: int, size: tuple[int, int] = (40, 30)) -> None:
    """Write a disc of one colour on black; `size` is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    inside = (columns - width / 2) ** 2 + (rows - height / 2) ** 2 < (height / 2 - 1) ** 2
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[inside] = colour(number)
    exact = {"quality": 98, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **exact)


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV; empty fields and quotes as the csv module writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def lines(path: Path, rows: Sequence[str]) -> None:
    """Write a published list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def one_hot(k: int, of: int) -> list[int]:
    """Return `k` as a list such as `[0, 1, 0]`."""
    return [int(j == k) for j in range(of)]


@pytest.fixture
def odir(tmp_path: Path) -> Path:
    """Build Kaggle's layout; patient p has class p % 8 on the left eye and (p + 1) % 8 on the right."""
    rows = []
    for p in range(30):
        both = [int(k in (p % 8, (p + 1) % 8)) for k in range(8)]
        for side, k in (("left", p % 8), ("right", (p + 1) % 8)):
            name = f"{p}_{side}.jpg"
            photograph(tmp_path / "preprocessed_images" / name, p)
            # The original: another picture of the same name, which must not be read.
            photograph(tmp_path / "ODIR-5K" / "ODIR-5K" / "Training Images" / name, p, (80, 60))
            rows.append([
                p, 50, "Female", f"{p}_left.jpg", f"{p}_right.jpg", "a, b", "normal fundus", *both,
                f"../input/ODIR-5K/Training Images/{name}", f"['{'NDGCAHMO'[k]}']",
                str(one_hot(k, 8)), name,
            ])  # fmt: skip
    table(tmp_path / "full_df.csv", ODIR_COLUMNS, rows)
    return tmp_path


@pytest.fixture
def odir_lists(odir: Path) -> Path:
    """Add a clone with ECAMP's lists: left eyes of the first 24 are trained on, right eyes tested."""
    folder = odir / "ECAMP" / "Fine-tuning" / "Classification" / "datasets" / "ODIR5K"

    def row(p: int, side: str) -> str:
        k = (p if side == "left" else p + 1) % 8
        return f"{p}_{side}.jpg " + " ".join(map(str, one_hot(k, 8)))

    train = [row(p, "left") for p in range(24)]
    lines(folder / "train_list.txt", train)
    lines(folder / "train_list_1.txt", train[:1])
    lines(folder / "train_list_10.txt", train[:3])
    lines(folder / "val_list.txt", [row(p, s) for p in range(24, 30) for s in ("left", "right")])
    lines(folder / "test_list.txt", [row(p, "right") for p in range(24)])
    return odir


@pytest.fixture
def aptos(tmp_path: Path) -> Path:
    """Build Kaggle's train.csv, and the lists of ECAMP in the same folder."""
    ids = [f"{7919 * k:012x}" for k in range(40)]
    for k, name in enumerate(ids):
        photograph(tmp_path / "train_images" / f"{name}.png", k)
    table(tmp_path / "train.csv", ["id_code", "diagnosis"], [[n, k % 5] for k, n in enumerate(ids)])
    rows = [f"{name}.png {k % 5}" for k, name in enumerate(ids)]
    folder = tmp_path / "clone" / "datasets" / "Aptos"
    for name, part in (("train", rows[:24]), ("val", rows[24:30]), ("test", rows[30:])):
        lines(folder / f"{name}_list.txt", part)
    return tmp_path


@pytest.fixture
def mured(tmp_path: Path) -> Path:
    """Build the release: png and tif; image k has classes k % 20 and (3 k) % 20."""
    rows, listed = [], []
    for k in range(60):
        suffix = ".tif" if k % 3 else ".png"
        name = f"aria_c_{k}_{k % 7}"
        photograph(tmp_path / "images" / f"{name}{suffix}", k)
        labels = [int(j in (k % 20, 3 * k % 20)) for j in range(20)]
        rows.append([name, *labels])
        listed.append(f"{name}{suffix} " + " ".join(map(str, labels)))
    table(tmp_path / "train_data.csv", ["ID", *MURED], rows[:48])
    table(tmp_path / "val_data.csv", ["ID", *MURED], rows[48:])
    folder = tmp_path / "clone" / "datasets" / "MURED"
    for name, part in (("train", listed[:40]), ("val", listed[40:48]), ("test", listed[48:])):
        lines(folder / f"{name}_list.txt", part)
    return tmp_path


def disc_and_cup(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return disc and cup of image k: rectangles, bool (30, 40)."""
    disc, cup = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    disc[5 : 20 + k % 5, 8 : 25 + k % 7] = True
    cup[9 : 15 + k % 3, 12 : 20 + k % 2] = True
    return disc, cup


@pytest.fixture
def riga(tmp_path: Path) -> Path:
    """Build RIGA+; the same file name appears in several folders."""
    sites = [f"BinRushed/BinRushed{k}" for k in (1, 2, 3, 4)]
    sites += ["MESSIDOR", "Magrabia/MagrabiaMale", "Magrabia/MagrabiFemale"]
    rows: dict[str, list[list[str]]] = {"train": [], "val": [], "test": []}
    k = 0
    for site in sites:
        for number in range(1, 7):
            name = f"{site}/image{number}.tif"
            photograph(tmp_path / "Image" / name, k)
            disc, cup = disc_and_cup(k)
            levels = np.where(cup, 255, np.where(disc, 128, 0)).astype(np.uint8)
            (tmp_path / "FinalLabel" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(levels).save(tmp_path / "FinalLabel" / name)
            split = "test" if "Magrabia" in site else "val" if number == 6 else "train"
            rows[split].append([f"Image/{name}", f"FinalLabel/{name}"])
            k += 1
    for split, part in rows.items():
        table(
            tmp_path / "clone" / "datasets" / "RIGA" / f"{split}_list.csv",
            ["img_path", "mask_path"],
            part,
        )
    return tmp_path


@pytest.fixture
def ffa_ir(tmp_path: Path) -> Path:
    """Build the annotation as downloaded; one list of images is written as text, as in some copies."""
    splits: dict[str, dict[str, object]] = {"train": {}, "val": {}, "test": {}}
    for c, split in enumerate(["train"] * 4 + ["val"] * 2 + ["test"] * 2):
        images = [f"{split}_{c}/{k}.jpg" for k in range(5)]
        for k, image in enumerate(images):
            photograph(tmp_path / "FFAIR" / image, 5 * c + k)
        splits[split][f"{split}_{c}"] = {
            "En_Report": f"Late leakage of eye {c}.\n", "Ch_Report": f"\u6e17\u6f0f {c}",
            "Image_path": str(images) if c == 1 else images,
        }  # fmt: skip
    (tmp_path / "ffair_annotation.json").write_text(json.dumps(splits))
    return tmp_path
