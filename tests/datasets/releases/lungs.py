"""Montgomery, Shenzhen and JSRT: small chests of rectangles, each organ with an outline of its own.

The right lung lies left in the image and reaches lower than the left one, so that exchanged sides show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.releases.release import Box, Release, lines, paint

NOTE = "male 54yrs, apical scars, seen by Dr. Doe"  # must never come out

# Number -> label; 0113 and 0117 are one person.
MONTGOMERY = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 104: 1, 108: 1, 113: 1, 117: 1, 126: 1, 140: 1}
SHENZHEN = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 327: 1, 328: 1, 329: 1, 330: 1, 331: 1}
UNOUTLINED = (3, 329)

# x, y and size in millimetres of nodules, in a film of 2,048 pixels a side; the last reaches over the edge.
NODULES = {
    "JPCLN001": (1634, 692, 15), "JPCLN002": (1614, 1090, 30), "JPCLN003": (520, 1400, 12),
    "JPCLN004": (1303, 447, 20), "JPCLN005": (400, 300, 9), "JPCLN154": (2040, 100, 25),
}  # fmt: skip
NORMAL = tuple(f"JPCNN{k:03}" for k in (1, 2, 3, 4, 92, 93))


def organs(shift: int) -> dict[str, Box]:
    """Of a film of 64 x 64; `shift` moves them, all edges are even."""
    s = 2 * (shift % 3)
    return {
        "right lung": (6, 10 + s, 24, 50 + s),
        "left lung": (40, 10 + s, 56, 40 + s),
        "heart": (26, 30 + s, 38, 44 + s),
        "right clavicle": (8, 4 + s, 22, 8 + s),
        "left clavicle": (42, 2 + s, 58, 6 + s),
    }


def draw_mask(path: Path, areas: tuple[Box, ...], size: tuple[int, int], scale: float = 1) -> None:
    pixels = np.zeros((size[1], size[0]), np.uint8)
    for area in areas:
        x1, y1, x2, y2 = (int(edge * scale) for edge in area)
        pixels[y1:y2, x1:x2] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _nlm(root: Path, prefix: str, labels: Mapping[int, int]) -> dict[str, tuple[Box, Box]]:
    """Write films with both lungs bright, and notes next to them; name -> right lung, left lung."""
    shown = {}
    for k, (number, label) in enumerate(labels.items()):
        name = f"{prefix}_{number:04}_{label}"
        shown[name] = (organs(k)["right lung"], organs(k)["left lung"])
        paint(root / f"CXR_png/{name}.png", shown[name], (64, 60), seed=k)
        lines(root / f"ClinicalReadings/{name}.txt", [NOTE])
    return shown


def _release(kind: str, root: Path, names: Mapping[str, object], index: Path) -> Release:
    labels: dict[str, tuple[int | None, ...]] = {name: (int(name[-1]),) for name in names}
    return Release(kind, root, index, labels, bright="mask")


def montgomery(tmp: Path, image_side: bool = True) -> Release:
    """Masks apart. `image_side`: leftMask is what lies left in the image, as the NLM names it."""
    root = tmp / "MontgomerySet"
    shown = _nlm(root, "MCUCXR", MONTGOMERY)
    for name, lungs in shown.items():
        for side, lung in zip(("left", "right"), lungs if image_side else lungs[::-1], strict=True):
            draw_mask(root / f"ManualMask/{side}Mask/{name}.png", (lung,), (64, 60))
    return _release("montgomery", root, shown, root / "ManualMask/leftMask/MCUCXR_0001_0.png")


def lung_masks_of_kaggle(tmp: Path, kind: str) -> Release:
    """Both sets in one folder a level below, one mask for both lungs, `_mask` for Shenzhen alone."""
    root = tmp / "kaggle"
    inner = root / "Lung Segmentation"
    sets = {"montgomery": ("MCUCXR", MONTGOMERY), "shenzhen": ("CHNCXR", SHENZHEN)}
    for prefix, labels in sets.values():
        for name, lungs in _nlm(inner, prefix, labels).items():
            end = "_mask" if prefix == "CHNCXR" else ""
            if not end or int(name.split("_")[1]) not in UNOUTLINED:
                draw_mask(inner / f"masks/{name}{end}.png", lungs, (64, 60))
    prefix, labels = sets[kind]
    names = [f"{prefix}_{number:04}_{label}" for number, label in labels.items()]
    first = inner / f"masks/{names[0]}{'_mask' if kind == 'shenzhen' else ''}.png"
    return _release(kind, root, dict.fromkeys(names), first)


def shenzhen(tmp: Path) -> Release:
    """Two films have no mask; the release's films, with the masks of Kaggle's folder in a folder."""
    root = tmp / "ChinaSet_AllFiles"
    shown = _nlm(root, "CHNCXR", SHENZHEN)
    for name, lungs in shown.items():
        if int(name.split("_")[1]) not in UNOUTLINED:
            draw_mask(root / f"mask/mask/{name}_mask.png", lungs, (64, 60))
    return _release("shenzhen", root, shown, root / "mask/mask/CHNCXR_0001_0_mask.png")


def write_density(path: Path, pixels: np.ndarray) -> None:
    """Encode an .IMG whose film looks like `pixels` (uint8): dense is dark, big-endian, 12 bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.round((255 - pixels.astype(float)) * 4095 / 255).astype(">u2").tobytes())


def nodule_rows(names: tuple[str, ...]) -> list[str]:
    """Rows of CLNDAT_EN.txt; one age is not known."""
    rows = []
    for k, name in enumerate(names):
        (x, y, size), age = NODULES[name], "?" if k == 1 else str(53 + k)
        told = f"{size}", age, "male", f"{x}", f"{y}", "malignant", "l.upper lobe(S1+2)", NOTE
        rows.append("\t".join((f"{name}.IMG", "5", *told)))
    return rows


def _jsrt(root: Path, names: tuple[str, ...], side: int, film: str, scr: str) -> Release:
    """Films of `side` pixels with bright organs and masks of half their size; `film`, `scr`: paths."""
    for k, name in enumerate(names):
        path, scale = root / film.format(name), side / 64
        areas = [tuple(edge * scale for edge in area) for area in organs(k).values()]
        if path.suffix == ".IMG":
            paint(path.with_suffix(".png"), areas, (side, side), seed=k)  # type: ignore[arg-type]
            with Image.open(path.with_suffix(".png")) as drawn:
                write_density(path, np.asarray(drawn))
            path.with_suffix(".png").unlink()
        else:
            paint(path, areas, (side, side), seed=k)  # type: ignore[arg-type]
        fold = 1 if int(name[-1]) % 2 else 2
        for organ, area in organs(k).items():
            mask = root / scr.format(fold=fold, organ=organ, name=name)
            draw_mask(mask, (area,), (side // 2, side // 2), scale / 2)
    boxes = {}
    for name in names:
        boxes[name] = []
        if name in NODULES:
            x, y, size = NODULES[name]
            half = size / 0.175 / 2
            corners = (x - half, y - half, min(x + half, 2048), y + half)
            boxes[name] = [tuple(corner * side / 2048 for corner in corners)]
    labels: dict[str, tuple[int | None, ...]] = {name: (int(name in NODULES),) for name in names}
    return Release("jsrt", root, root / "CLNDAT_EN.txt", labels, boxes=boxes, bright="mask")  # type: ignore[arg-type]


def jsrt(tmp: Path) -> Release:
    """As published: raw films, GIF masks in folds, the table in a folder of its own."""
    root, names = tmp / "JSRT", ("JPCLN001", "JPCLN002", "JPCNN092", "JPCNN093")
    release = _jsrt(
        root, names, 2048, "All247images/{}.IMG", "scr/scratch/fold{fold}/masks/{organ}/{name}.gif"
    )
    table = root / "Clinical_Information/CLNDAT_EN.txt"
    release.index = lines(table, nodule_rows(names[:2]), end="\r\n")
    return release


def jsrt_png(tmp: Path, protocol: str = "ecamp") -> Release:
    """Films saved again as PNG, the table at the top; any protocol."""
    root, names = tmp / "jsrt", (*NODULES, *NORMAL)
    release = _jsrt(root, names, 64, "images/{}.png", "scratch/fold{fold}/masks/{organ}/{name}.gif")
    lines(root / "CLNDAT_EN.txt", nodule_rows(tuple(NODULES)))
    release.options = {} if protocol == "ecamp" else {"splits": protocol}
    return release


def jsrt_kaggle(tmp: Path) -> Release:
    """jsrt_metadata.csv, images/images/ and masks without folds, in a folder named like the archive."""
    root, names = tmp / "kaggle-jsrt", (*NODULES, *NORMAL)
    inner = root / "nodules-in-chest-xrays-jsrt"
    release = _jsrt(inner, names, 64, "images/images/{}.png", "masks/{organ}/{name}.png")
    release.root = root
    for folder in (inner / "masks").iterdir():
        folder.rename(folder.with_name(folder.name.replace(" ", "_")))
    rows = ["study_id,subtlety,size,age,gender,x,y,state,position,diagnosis"]
    for name in names:
        x, y, size = NODULES.get(name, ("", "", ""))
        state = "malignant" if name in NODULES else "non-nodule"
        rows.append(
            f"{name}.png,5,{size},53,Male,{x},{y},{state},l.upper lobe,{NOTE.replace(',', '')}"
        )
    release.index = lines(inner / "jsrt_metadata.csv", rows)
    return release
