"""Draws the pictures of the documentation: `python docs/make_images.py [RUN]`.

- `phantom.jpg`: one study per finding and two normal ones, the lesion outlined in a second copy, with
  the impression of the report below.
- `sheet.jpg`: `ecamp data show phantom`.
- `explain.png`: the page of `ecamp text explain --html`.
- `report.png`, `preview.jpg`: the page and the last preview of ECAMP of RUN, a folder of the default
  bench. `ecamp report RUN` writes the page.

Pages are photographed by chromium (`apt install chromium`); `CHROMIUM` names another program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ecamp.datasets.phantom.findings import FINDINGS
from ecamp.datasets.phantom.study import describe_study, render_study

SIDE, GAP, TEXT, COLUMNS = 224, 10, 58, 5
OUTLINE = (255, 196, 0)
FOLDER = Path(__file__).parent / "images"
REPORT = """\
FINDINGS: There is a small left apical pneumothorax. Moderate cardiomegaly with mild perihilar edema. \
No pleural effusion. There is no evidence of focal consolidation.
IMPRESSION: Small left pneumothorax, new since the prior study. Cholecystectomy clips unchanged, 2.5 cm apart.
"""


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
    alone: dict[str, list[int]] = {name: [] for name in ("normal", *FINDINGS)}
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
        sheet.paste(outlined(study.image, np.any(study.masks, axis=0)), (x, y + SIDE + GAP // 2))
        impression = study.description.report.split("IMPRESSION:")[-1].strip()
        lines = textwrap.wrap(impression, 34)[:2]
        text = "\n".join([caption.upper(), *lines])
        draw.multiline_text((x, y + 2 * SIDE + GAP), text, fill=(20, 25, 35), font=font)
    return sheet


def photographed(page: Path, width: int, height: int) -> Image.Image:
    """The first `height` pixels of an HTML page."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--hide-scrollbars", f"--window-size={width},{height}", f"--screenshot={picture}"]
        command = [os.environ.get("CHROMIUM", "chromium"), *flags, page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        return Image.open(picture).convert("RGB")


def few_colours(image: Image.Image) -> Image.Image:
    """The page with a palette: half of the bytes. Rare colours, such as dotted lines, are kept."""
    return image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def draw_data(folder: Path) -> None:
    """Pictures that need no run: the phantom, a contact sheet, a page of `text explain`."""
    contact_sheet().save(FOLDER / "phantom.jpg", quality=82, optimize=True)
    sheet, page, report = folder / "sheet.png", folder / "page.html", folder / "report.txt"
    report.write_text(REPORT, encoding="utf-8")
    ecamp = [sys.executable, "-m", "ecamp"]
    show = [*ecamp, "data", "show", "phantom", "-o", str(sheet), "--count", "12"]
    subprocess.run(show, check=True)
    Image.open(sheet).convert("RGB").save(FOLDER / "sheet.jpg", quality=82, optimize=True)
    explain = [*ecamp, "text", "explain", "--file", str(report), "--html", str(page)]
    subprocess.run(explain, check=True, stdout=subprocess.DEVNULL)
    few_colours(photographed(page, 1100, 1580)).save(FOLDER / "explain.png", optimize=True)


def draw_run(run: Path) -> None:
    """Pictures of a finished default bench: its page, and two films of the pre-training by ECAMP."""
    page = run / "report" / "index.html"
    few_colours(photographed(page, 1100, 790)).save(FOLDER / "report.png", optimize=True)
    for recipe in sorted(run.glob("pretrain/*/pretrain.json")):
        if "tokenizer" in json.loads(recipe.read_text(encoding="utf-8")):  # a pretext that reads
            last = max((recipe.parent / "preview").glob("step-*.png"))
            films = Image.open(last).convert("RGB")
            films = films.crop((0, 0, films.width, 552))
            films.save(FOLDER / "preview.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        draw_data(Path(scratch))
    for name in sys.argv[1:]:
        draw_run(Path(name))
