"""Pictures of the report: bars with intervals as SVG, and images with truth and predictions."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ecamp.api.plugin_ref import PluginRef
from ecamp.api.task import Overlay, TaskPlugin
from ecamp.bench.run_folder import read_spec
from ecamp.errors import CorruptFileError, EcampError, PluginError, UsageError
from ecamp.io.images import as_rgb
from ecamp.metrics.surface import outline
from ecamp.plugin.blame import blamed
from ecamp.report.summary import Row, StoredCell

_log = logging.getLogger(__name__)

PALETTE = ("#4cc9f0", "#f72585", "#ffb703", "#80ed99", "#c77dff", "#ff7b00", "#48e5c2", "#ff5d8f")
TILE = 176  # pixels of a picture's side
MAX_IMAGES = 6  # images in the gallery
MARK = {"better": "#157f3b", "worse": "#b3261e"}


def bars(rows: list[Row]) -> str:
    """Draw one horizontal bar per row with its interval, the floor as a dashed line, as SVG."""
    drawn = [row for row in rows if row.value is not None]
    if not drawn:
        return ""
    left, right, step, width = 170, 64, 24, 620
    ends = [
        value
        for row in drawn
        for value in (row.value, row.low, row.high, row.floor)
        if value is not None
    ]
    bottom, top = min([0.0, *ends]) * 1.04, max([0.0, *ends]) * 1.04
    scale = (width - left - right) / max(top - bottom, 1e-9)

    def position(value: float) -> float:
        return left + (value - bottom) * scale

    parts: list[str] = []
    y = 8
    for row in drawn:
        assert row.value is not None
        zero, x = position(0.0), position(row.value)
        label = f"{row.pretext}, {100 * row.fraction:g} % labels"
        fill = "#c9ccd3" if row.below_floor else MARK.get(row.verdict, "#5b6b8c")
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(label, quote=False)}</text>'
        )
        parts.append(f'<rect x="{min(zero, x):.1f}" y="{y}" width="{abs(x - zero):.1f}" height="16" rx="2" '
                     f'fill="{fill}"/>')  # fmt: skip
        end = x
        if row.low is not None and row.high is not None:
            start, end = position(row.low), position(row.high)
            parts.append(f'<path d="M{start:.1f} {y + 8}H{end:.1f}M{start:.1f} {y + 4}v8M{end:.1f} {y + 4}v8" '
                         'stroke="#1d2433" stroke-width="1.5" fill="none"/>')  # fmt: skip
        if row.floor is not None:
            floor_x = position(row.floor)
            parts.append(f'<path d="M{floor_x:.1f} {y - 3}v22" stroke="#d1495b" stroke-width="1.5" '
                         'stroke-dasharray="3 2"/>')  # fmt: skip
            end = max(end, floor_x)
        parts.append(f'<text x="{end + 7:.1f}" y="{y + 13}">{row.value:.3f}</text>')
        y += step
    return (f'<svg viewBox="0 0 {width} {y + 4}" role="img" '
            f'aria-label="scores with 95 % intervals">{"".join(parts)}</svg>')  # fmt: skip


@dataclass(frozen=True)
class Gallery:
    """Pictures of one data set and task.

    Attributes:
        content: `masks`, `boxes`, or both, as the task's overlays contain them.
        columns: Headings: image, truth, then one per pretext.
        lines: Per image: its id, the pictures as data URIs.
        legend: (class, colour).
    """

    dataset: str
    content: str
    columns: list[str]
    lines: list[tuple[str, list[str]]]
    legend: list[tuple[str, str]]


def galleries(run: Path, cells: list[StoredCell]) -> list[Gallery]:
    """Make one gallery per data set and task: the largest fraction and first seed of each pretext.

    A task without `overlay`, or whose plugin fails or is not installed any more, has none.
    """
    result = []
    try:
        refs = read_spec(run).task_refs()
    except (CorruptFileError, UsageError):
        refs = {}
    for file in sorted((run / "gallery").glob("*.npz")):
        with np.load(file, allow_pickle=False) as stored:
            images, ids, name = (
                stored["images"],
                [str(i) for i in stored["ids"]],
                str(stored["dataset"]),
            )
        for task in dict.fromkeys(cell.result.cell.task for cell in cells):
            chosen = _choose(cells, name, task)
            plugin = _task_plugin(refs.get(task) or PluginRef(name=task)) if chosen else None
            if plugin is None:
                continue
            try:
                with blamed(plugin.origin, f"{type(plugin).__qualname__}.overlay"):
                    result.append(_gallery(run, images, ids, name, plugin, chosen))
            except PluginError as error:  # table and page are written all the same
                _log.warning("%s, %s: no pictures: %s", name, task, error)
    return [gallery for gallery in result if gallery.lines]


def _task_plugin(ref: PluginRef) -> TaskPlugin | None:
    from ecamp.plugin.host import make_plugin

    try:
        plugin: TaskPlugin = make_plugin("ecamp.tasks", ref)
    except EcampError:
        return None
    return plugin if type(plugin).overlay is not TaskPlugin.overlay else None


def _choose(cells: list[StoredCell], dataset: str, task: str) -> list[dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for cell in cells:
        fields = cell.result.cell
        if fields.dataset != dataset or fields.task != task or cell.result.is_floor:
            continue
        before = best.get(fields.pretext)
        rank = (-fields.fraction, fields.seed, fields.encoder, fields.protocol)
        if before is None or rank < before["rank"]:
            best[fields.pretext] = {"rank": rank, "id": cell.result.id, "pretext": fields.pretext}
    return [best[p] for p in sorted(best, key=lambda p: (p != "none", p))]


def _gallery(
    run: Path,
    images: np.ndarray,
    ids: list[str],
    name: str,
    task: TaskPlugin,
    chosen: list[dict[str, Any]],
) -> Gallery:
    from ecamp.bench.run_folder import read_predictions

    stored = []
    for cell in chosen:
        try:
            stored.append(read_predictions(run / "cells" / cell["id"] / "predictions.npz"))
        except (CorruptFileError, FileNotFoundError):
            continue
    lines: list[tuple[str, list[str]]] = []
    contents: set[str] = set()
    classes = [str(c) for c in stored[0]["classes"]] if stored else []
    for position, image_id in enumerate(ids):
        index = [
            list(map(str, s["ids"])).index(image_id) if image_id in s["ids"] else -1 for s in stored
        ]
        if not index or min(index) < 0 or len(lines) == MAX_IMAGES:
            continue
        overlays = [task.overlay(s, s, i) for s, i in zip(stored, index, strict=True)]
        truth = overlays[0][0]
        if not truth:
            continue
        contents |= {field for field in ("masks", "boxes") if getattr(truth, field)}
        drawn = [Overlay(), truth, *(predicted for _, predicted in overlays)]
        lines.append((image_id, [_picture(images[position], overlay) for overlay in drawn]))
    legend = [(c, PALETTE[k % len(PALETTE)]) for k, c in enumerate(classes)]
    content = " and ".join(sorted(contents, reverse=True))
    headings = ["image", "truth", *(c["pretext"] for c in chosen)]
    return Gallery(name, content, headings, lines, legend)


def _picture(image: np.ndarray, overlay: Overlay) -> str:
    """Draw masks (tinted, outlined) and boxes over an image; return it as a PNG data URI."""
    size = image.shape[0]
    pixels = as_rgb(image)
    canvas = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (TILE, TILE), Image.Resampling.BICUBIC
    )
    for class_index, mask in overlay.masks:
        layer = Image.fromarray((mask * 255).astype(np.uint8)).resize((TILE, TILE))
        inside = np.asarray(layer) > 127
        tint = Image.new("RGB", (TILE, TILE), PALETTE[class_index % len(PALETTE)])
        alpha = np.where(outline(inside), 255, np.where(inside, 70, 0)).astype(np.uint8)
        canvas.paste(tint, mask=Image.fromarray(alpha))
    for class_index, corners in overlay.boxes:
        box = [float(v) * TILE / size for v in corners]
        if box[2] > box[0] and box[3] > box[1]:
            colour = PALETTE[class_index % len(PALETTE)]
            ImageDraw.Draw(canvas).rectangle(box, outline=colour, width=2)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
