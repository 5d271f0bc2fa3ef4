"""PadChest: its folder, small: films of 16 bit in numbered folders, labels as lists in text."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ecamp.datasets.padchest import FINDINGS
from tests.datasets.releases.release import Release

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
# image, folder, patient, projection, method, Labels, findings (None = not read; "?" = the rest unknown)
PADCHEST_FILMS: list[tuple[str, str, str, str, str, str, set[str] | None]] = [
    ("2053_k6ga29.png", "0", "8397", "PA", "Physician", "['normal']", set()),
    ("1358_fzis7d.png", "0", "3137", "PA", "Physician", "['pulmonary fibrosis', 'pseudonodule']",
     {"pulmonary fibrosis"}),
    ("1358_fzis7b.png", "0", "3137", "L", "Physician", "['pulmonary fibrosis', 'pseudonodule']", None),
    ("1138_3k951l.png", "1", "6205", "AP", "RNN_model", "['infiltrates', ' pneumonia']",
     {"infiltrates", "pneumonia"}),
    ("1496_3r162a.png", "1", "3258", "AP_horizontal", "RNN_model",
     "['laminar atelectasis', 'unchanged', '']", {"atelectasis", "?"}),
    ("6803_wir071.png", "13", "2062", "PA", "RNN_model", "['air bronchogram']",
     {"consolidation", "infiltrates"}),
    ("0009_00-176-115.png", "54", "9001", "PA", "Physician", "['subcutaneous emphysema', 'COPD signs']",
     {"copd signs"}),
    ("0010_00 - 030 - 080.png", "54", "9002", "PA", "RNN_model", "['hydropneumothorax']",
     {"pleural effusion", "pneumothorax"}),
    ("0011.png", "54", "9003", "PA", "RNN_model", "[]", None),
    ("0012.png", "54", "9003", "PA", "Physician", "['exclude']", None),
    ("0013.png", "54", "9004", "EXCLUDE", "Physician", "['cardiomegaly']", None),
    ("0014.png", "54", "9005", "COSTAL", "Physician", "['rib fracture']", None),
    ("0015.png", "54", "9006", "PA", "Physician", "['callus rib fracture', 'cardiomegaly']",
     {"fracture", "cardiomegaly"}),
]  # fmt: skip


def film16(path: Path, seed: int) -> np.ndarray:
    """Draw a 16-bit film, no two alike.

    Returns:
        uint16 (40, 48).
    """
    pixels = np.linspace(500 + 10 * seed, 3_500, 40 * 48).astype(np.uint16).reshape(40, 48)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def padchest_labels(findings: set[str]) -> tuple[int | None, ...]:
    absent = None if "?" in findings else 0
    return tuple(1 if name in findings else absent for name in FINDINGS)


def padchest(tmp: Path) -> Release:
    root = tmp / "BIMCV-PadChest-FULL"
    header = ["", "ImageID", "ImageDir", "StudyDate_DICOM", "PatientID", "Projection",
              "PhotometricInterpretation_DICOM", "Report", "MethodLabel", "Labels", "LabelCUIS"]  # fmt: skip
    rows = [header]
    for k, (file, folder, patient, view, method, text, _) in enumerate(PADCHEST_FILMS):
        film16(root / folder / file, k)
        about = [str(k), file, folder, "20140915", patient, view, "MONOCHROME2"]
        rows.append([*about, "sin cambi .  ", method, text, "['C0205307' '']"])
    index = root / TABLE
    with index.open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows(rows)
    labels = {f[0]: padchest_labels(f[-1]) for f in PADCHEST_FILMS if f[-1] is not None}
    return Release("padchest", root, index, labels, {"labels": "all"})
