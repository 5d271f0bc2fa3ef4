"""Draws the pictures of the documentation: `python docs/make_images.py`.

`docs/images/phantom.jpg`: one study of each finding and some normal ones, the lesion outlined in a
second copy, with the report's impression below.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ecamp.datasets.phantom.findings import FINDINGS
from ecamp.datasets.phantom.study import describe_study, render_study

SIDE, GAP, TEXT, COLUMNS = 224, 10, 58, 5
OUTLINE = (255, 196, 0)


def outlined(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """The image with the mask's border in colour."""
    inner = mask.copy()
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inner &= np.roll(mask, step, axis)
    rgb = np.repeat(image[..., None], 3, axis=2)
    rgb[mask & ~inner] = OUTLINE
    return Image.fromarray(rgb)


def chosen() -> list[tuple[str, int]]:
    """(caption, study): a normal film twice, then the third film with that finding alone."""
    alone = {name: [] for name in ("normal", *FINDINGS)}
    for index in range(4000):
        names = [finding.name for finding in describe_study(0, index).findings]
        if len(set(names)) <= 1:
            alone[names[0] if names else "normal"].append(index)
    picked = [("normal", alone["normal"][0]), ("normal", alone["normal"][7])]
    picked += [(name, alone[name][2]) for name in FINDINGS]
    return picked


def contact_sheet() -> Image.Image:
    """All chosen studies, plain above outlined."""
    font = ImageFont.load_default(13)
    studies = chosen()
    rows = -(-len(studies) // COLUMNS)
    height = 2 * SIDE + GAP + TEXT
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, rows * (height + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for at, (caption, index) in enumerate(studies):
        study = render_study(0, index, SIDE)
        x, y = GAP + at % COLUMNS * (SIDE + GAP), GAP + at // COLUMNS * (height + GAP)
        sheet.paste(Image.fromarray(study.image).convert("RGB"), (x, y))
        sheet.paste(outlined(study.image, study.masks.any(0)), (x, y + SIDE + GAP // 2))
        impression = study.description.report.split("IMPRESSION:")[-1].strip()
        lines = textwrap.wrap(impression, 34)[:2]
        text = "\n".join([caption.upper(), *lines])
        draw.multiline_text((x, y + 2 * SIDE + GAP), text, fill=(20, 25, 35), font=font)
    return sheet


if __name__ == "__main__":
    folder = Path(__file__).parent / "images"
    folder.mkdir(exist_ok=True)
    contact_sheet().save(folder / "phantom.jpg", quality=82, optimize=True)
