"""Pictures of the report: bars with intervals as SVG, and images with truth and predictions."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ecamp.errors import CorruptFileError
from ecamp.report.summary import CellResult, Row

PALETTE = ("#4cc9f0", "#f72585", "#ffb703", "#80ed99", "#c77dff", "#ff7b00", "#48e5c2", "#ff5d8f")
TILE = 176  # pixels of a picture's side
SHOWN = 6  # images in the gallery
SCORE_CUT = 0.4  # boxes below are not drawn
MARK = {"better": "#157f3b", "worse": "#b3261e"}


def bars(rows: list[Row]) -> str:
    """One horizontal bar a row with its interval, the floor as a dashed line; an SVG."""
    shown = [row for row in rows if row.value is not None]
    if not shown:
        return ""
    left, right, step, width = 170, 64, 24, 620
    top = max([*(row.high or row.value or 0 for row in shown), *(r.floor or 0 for r in shown)])
    scale = (width - left - right) / max(top * 1.04, 1e-9)
    parts: list[str] = []
    y = 8
    for row in shown:
        assert row.value is not None
        x = left + row.value * scale
        label = f"{row.pretext}, {100 * row.fraction:g} % labels"
        fill = "#c9ccd3" if row.below_floor else MARK.get(row.verdict, "#5b6b8c")
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{_text(label)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{row.value * scale:.1f}" height="16" rx="2" '
                     f'fill="{fill}"/>')  # fmt: skip
        end = x
        if row.low is not None and row.high is not None:
            a, end = left + row.low * scale, left + row.high * scale
            parts.append(f'<path d="M{a:.1f} {y + 8}H{end:.1f}M{a:.1f} {y + 4}v8M{end:.1f} {y + 4}v8" '
                         'stroke="#1d2433" stroke-width="1.5" fill="none"/>')  # fmt: skip
        if row.floor is not None:
            at = left + row.floor * scale
            parts.append(f'<path d="M{at:.1f} {y - 3}v22" stroke="#d1495b" stroke-width="1.5" '
                         'stroke-dasharray="3 2"/>')  # fmt: skip
            end = max(end, at)
        parts.append(f'<text x="{end + 7:.1f}" y="{y + 13}">{row.value:.3f}</text>')
        y += step
    return (f'<svg viewBox="0 0 {width} {y + 4}" role="img" '
            f'aria-label="scores with 95 % intervals">{"".join(parts)}</svg>')  # fmt: skip


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True)
class Gallery:
    """Pictures of one data set.

    Attributes:
        columns: Headings: image, truth, then one a pretext.
        lines: Per image: its id, the pictures as data URIs.
        legend: (class, colour).
    """

    dataset: str
    task: str
    columns: list[str]
    lines: list[tuple[str, list[str]]]
    legend: list[tuple[str, str]]


def galleries(run: Path, cells: list[CellResult]) -> list[Gallery]:
    """One gallery a data set and task (seg, det): the largest fraction and first seed of each pretext."""
    out = []
    for file in sorted((run / "gallery").glob("*.npz")):
        with np.load(file, allow_pickle=False) as stored:
            images, ids, name = (
                stored["images"],
                [str(i) for i in stored["ids"]],
                str(stored["dataset"]),
            )
        for task in ("seg", "det"):
            chosen = _choose(cells, name, task)
            if chosen:
                out.append(_gallery(run, images, ids, name, task, chosen))
    return [g for g in out if g.lines]


def _choose(cells: list[CellResult], dataset: str, task: str) -> list[dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for cell in cells:
        c = cell.result["cell"]
        if c["dataset"] != dataset or c["task"] != task or cell.result["kind"] == "floor":
            continue
        before = best.get(c["pretext"])
        rank = (-c["fraction"], c["seed"], c["encoder"], c["protocol"])
        if before is None or rank < before["rank"]:
            best[c["pretext"]] = {"rank": rank, "id": cell.result["id"], "pretext": c["pretext"]}
    return [best[p] for p in sorted(best, key=lambda p: (p != "none", p))]


def _gallery(
    run: Path,
    images: np.ndarray,
    ids: list[str],
    name: str,
    task: str,
    chosen: list[dict[str, Any]],
) -> Gallery:
    from ecamp.bench.store import read_predictions

    stored = []
    for cell in chosen:
        try:
            stored.append(read_predictions(run / "cells" / cell["id"] / "predictions.npz"))
        except (CorruptFileError, FileNotFoundError):
            continue
    lines: list[tuple[str, list[str]]] = []
    classes = [str(c) for c in stored[0]["classes"]] if stored else []
    for at, key in enumerate(ids):
        places = [list(map(str, s["ids"])).index(key) if key in s["ids"] else -1 for s in stored]
        if not places or min(places) < 0 or len(lines) == SHOWN:
            continue
        truth = _marks(stored[0], places[0], task, truth=True)
        if not truth:
            continue
        pictures = [_picture(images[at], []), _picture(images[at], truth)]
        for s, place in zip(stored, places, strict=True):
            pictures.append(_picture(images[at], _marks(s, place, task, truth=False)))
        lines.append((key, pictures))
    legend = [(c, PALETTE[k % len(PALETTE)]) for k, c in enumerate(classes)]
    return Gallery(name, task, ["image", "truth", *(c["pretext"] for c in chosen)], lines, legend)


def _marks(s: dict[str, np.ndarray], place: int, task: str, truth: bool) -> list[tuple[int, Any]]:
    """(class, mask) or (class, box) of one image."""
    if task == "seg":
        masks = s["target" if truth else "mask"][place]
        return [(k, layer) for k, layer in enumerate(masks) if layer.any()]
    if truth:
        at = s["gt_image_index"] == place
        return list(zip(s["gt_labels"][at].tolist(), s["gt_boxes"][at].tolist(), strict=True))
    at = (s["image_index"] == place) & (s["scores"] >= SCORE_CUT)
    return list(zip(s["labels"][at].tolist(), s["boxes"][at].tolist(), strict=True))


def _picture(image: np.ndarray, marks: list[tuple[int, Any]]) -> str:
    """An image with masks (tinted, outlined) and boxes drawn over it, as a PNG data URI."""
    size = image.shape[0]
    grey = image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)
    canvas = Image.fromarray(np.ascontiguousarray(grey)).resize(
        (TILE, TILE), Image.Resampling.BICUBIC
    )
    for kind, mark in marks:
        colour = PALETTE[kind % len(PALETTE)]
        if isinstance(mark, np.ndarray):
            layer = Image.fromarray((mark * 255).astype(np.uint8)).resize((TILE, TILE))
            inside = np.asarray(layer) > 127
            edge = inside & ~_eroded(inside)
            tint = Image.new("RGB", (TILE, TILE), colour)
            alpha = Image.fromarray(np.where(edge, 255, np.where(inside, 70, 0)).astype(np.uint8))
            canvas.paste(tint, mask=alpha)
        else:
            box = [float(v) * TILE / size for v in mark]
            if box[2] > box[0] and box[3] > box[1]:
                ImageDraw.Draw(canvas).rectangle(box, outline=colour, width=2)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _eroded(inside: np.ndarray) -> np.ndarray:
    padded = np.pad(inside, 1)
    out = inside.copy()
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        out &= padded[dy : dy + inside.shape[0], dx : dx + inside.shape[1]]
    return out
