"""A contact sheet: images with their masks and boxes drawn, to check truth by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ecamp.io.images import as_rgb
from ecamp.report.pictures import PALETTE

TILE, LINE, COLUMNS = 256, 15, 6


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        image: uint8 (height, width, channels). caption: Lines below it.
        masks: bool (classes, height, width) or None.
        boxes: (x1, y1, x2, y2, class) in pixels of the image.
    """

    image: np.ndarray
    caption: tuple[str, ...]
    masks: np.ndarray | None = None
    boxes: tuple[tuple[float, float, float, float, int], ...] = ()


def contact_sheet(tiles: Sequence[Tile], classes: Sequence[str]) -> Image.Image:
    """Lay tiles out in rows, with a legend of the classes on top."""
    columns = min(COLUMNS, max(1, len(tiles)))
    lines = max((len(tile.caption) for tile in tiles), default=0)
    height, rows = TILE + LINE * lines + 8, -(-len(tiles) // columns)
    width = columns * (TILE + 6) + 6
    positions = _legend(classes, width)
    legend = positions[-1][1] + LINE + 4 if positions else 0
    sheet = Image.new("RGB", (width, rows * height + legend + 6), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (name, (x, y)) in enumerate(zip(classes, positions, strict=True)):
        draw.rectangle((x, y + 1, x + 10, y + 11), fill=PALETTE[k % len(PALETTE)])
        draw.text((x + 15, y), name, fill="#1d2433")
    for i, tile in enumerate(tiles):
        left, top = 6 + i % columns * (TILE + 6), legend + 6 + i // columns * height
        sheet.paste(_picture(tile), (left, top))
        for n, line in enumerate(tile.caption):
            draw.text((left + 2, top + TILE + 2 + n * LINE), _fit(draw, line), fill="#1d2433")
    return sheet


def _legend(classes: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Compute the position (left, top) of each class name, in lines of a sheet's width."""
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    positions, x, y = [], 8, 6
    for name in classes:
        entry_width = 15 + int(draw.textlength(name))
        if x > 8 and x + entry_width > width:
            x, y = 8, y + LINE + 2
        positions.append((x, y))
        x += entry_width + 18
    return positions


def _picture(tile: Tile) -> Image.Image:
    pixels = as_rgb(tile.image)
    blended = pixels.astype(np.float32)
    for k, mask in enumerate(tile.masks if tile.masks is not None else ()):
        colour = np.array(_rgb(PALETTE[k % len(PALETTE)]), np.float32)
        blended[mask] = 0.55 * blended[mask] + 0.45 * colour
    scale = TILE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    resized = Image.fromarray(blended.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (TILE, TILE), "#20242c")
    origin = ((TILE - size[0]) // 2, (TILE - size[1]) // 2)
    picture.paste(resized, origin)
    draw = ImageDraw.Draw(picture)
    for x1, y1, x2, y2, class_id in tile.boxes:
        corners = [
            origin[0] + x1 * scale,
            origin[1] + y1 * scale,
            origin[0] + x2 * scale,
            origin[1] + y2 * scale,
        ]
        draw.rectangle(corners, outline=PALETTE[class_id % len(PALETTE)], width=2)
    return picture


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _fit(draw: ImageDraw.ImageDraw, text: str) -> str:
    """Cut a line to the width of a tile; latin letters only, for the built-in font."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while text and draw.textlength(text) > TILE - 4:
        text = text[:-2]
    return text
