"""Pictures of a pre-training: the model's input, its predictions and its losses. No torch."""

from __future__ import annotations

import io
import json
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.storage.files import write_bytes

WORDS = 2  # entities per sample whose attention is shown
SIDE, GAP, TITLE, CAPTION, HEAD = 1.75, 0.1, 0.24, 0.36, 0.36  # inches of the picture's parts
LABELS = {"mim": "masked image", "sr": "super-resolution", "mlm": "masked text", "loss": "total"}


def draw_preview(
    path: Path,
    panels: dict[str, np.ndarray],
    windows: np.ndarray | None,
    attention: Sequence[Sequence[tuple[str, np.ndarray]]],
    captions: Sequence[str],
    title: str,
) -> None:
    """Draw one row per sample: its panels, then the attention of its entities; a PNG.

    Args:
        panels: By name, uint8 (n, h, w) or (n, h, w, 3).
        windows: (n, 4) x0, y0, x1, y1 in 0..1, outlined in the panels of the large image.
        attention: For each sample, words with a map (rows, columns).
        captions: One line of text per sample (its report).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    count = len(next(iter(panels.values())))
    words = min(WORDS, max((len(entities) for entities in attention), default=0))
    columns = len(panels) + words
    # Placed by hand, in inches: captions run below their row, across all of its columns.
    width = columns * (SIDE + GAP) + GAP
    row = TITLE + SIDE + CAPTION
    height = count * row + HEAD
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    figure.text(GAP / width, 1 - 0.6 * HEAD / height, title, fontsize=10, weight="bold")

    def panel(i: int, k: int, name: str) -> Any:
        left, bottom = GAP + k * (SIDE + GAP), height - HEAD - i * row - TITLE - SIDE
        axis = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
        axis.set_axis_off()
        axis.set_title(textwrap.shorten(name, 24, placeholder=" …"), fontsize=8, pad=3)
        return axis

    background = next(reversed(panels.values()))
    for i in range(count):
        for k, (name, images) in enumerate(panels.items()):
            axis = panel(i, k, name)
            axis.imshow(images[i], cmap="gray", vmin=0, vmax=255)
            if windows is not None and name in ("super-resolved", "target"):
                high, wide = images[i].shape[:2]
                x0, y0, x1, y1 = windows[i] * [wide, high, wide, high] - 0.5
                box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="#ffb703", lw=1.4)
                axis.add_patch(box)
        for k, (word, cells) in enumerate(attention[i][:words] if attention else []):
            axis = panel(i, len(panels) + k, f"“{word}”")
            high, wide = background[i].shape[:2]
            axis.imshow(background[i], cmap="gray", vmin=0, vmax=255)
            axis.imshow(cells, cmap="inferno", alpha=0.55, interpolation="bilinear",
                        extent=(-0.5, wide - 0.5, high - 0.5, -0.5))  # fmt: skip
        letters = int(width * 15)
        text = textwrap.shorten(captions[i], 2 * letters - 8, placeholder=" …")
        below = height - HEAD - (i + 1) * row + CAPTION - 0.05
        figure.text(GAP / width, below / height, textwrap.fill(text, letters), fontsize=7, va="top",
                    color="#555", linespacing=1.3)  # fmt: skip
    write_bytes(path, _png(figure))


def draw_curves(metrics: Path, path: Path) -> None:
    """Draw the losses of a `metrics.jsonl` over its steps; a PNG. No file without losses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []:
        row = json.loads(line)
        for name in set(row) - {"step", "lr", "loss"}:
            series[name].append((row["step"], row[name]))
    if not series:
        return
    figure = Figure(figsize=(3.4 * len(series), 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(
        figure.subplots(1, len(series), squeeze=False)[0], sorted(series), strict=True
    ):
        steps, values = zip(*series[name], strict=True)
        axis.plot(steps, values, color="#2b6cb0", lw=1.4)
        axis.set_title(LABELS.get(name, name), fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    write_bytes(path, _png(figure))


def _png(figure: object) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # type: ignore[attr-defined]
    return buffer.getvalue()
