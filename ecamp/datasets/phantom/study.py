"""A complete phantom study: image, truth and report as a function of (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecamp.api.distiller import Statement, template_text
from ecamp.datasets.phantom.anatomy import Anatomy, Pose, draw_anatomy, draw_pose
from ecamp.datasets.phantom.deterministic_math import generator
from ecamp.datasets.phantom.findings import FINDINGS, Finding, draw_findings, follow_up
from ecamp.datasets.phantom.render import render
from ecamp.datasets.phantom.report import write_report

GENERATOR_VERSION = 1  # increment whenever any pixel or word changes
BLOCK = 6  # studies per block; the studies of a patient are in one block
_STUDIES_PER_PATIENT = ((1, 2, 3), (2, 1, 3), (3, 2, 1), (1, 1, 2, 2), (2, 2, 2), (1, 1, 1, 3))

# Name of a finding of the phantom -> entity of the chest lexicon.
ENTITY = {
    "nodule": "nodule",
    "mass": "mass",
    "consolidation": "consolidation",
    "effusion": "effusion",
    "pneumothorax": "pneumothorax",
    "cardiomegaly": "cardiomegaly",
    "atelectasis": "atelectasis",
    "oedema": "edema",
}


@dataclass(frozen=True)
class Description:
    """A study without its pixels.

    Attributes:
        index: Index of the study.
        patient: Id of the patient.
        anatomy, pose, findings: Input of the renderer.
        report: Its text.
        statements: Exact statements of the report about entities of the chest lexicon, in text order.
    """

    index: int
    patient: str
    anatomy: Anatomy
    pose: Pose
    findings: tuple[Finding, ...]
    report: str
    statements: tuple[Statement, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """0 or 1 for each of `FINDINGS`."""
        present = {finding.name for finding in self.findings}
        return tuple(int(name in present) for name in FINDINGS)


def describe_study(seed: int, index: int) -> Description:
    """Draw patient, findings and report of one study, without rendering it."""
    block, position = divmod(index, BLOCK)
    choice = int(generator(seed, block, 1).integers(0, len(_STUDIES_PER_PATIENT)))
    studies = _STUDIES_PER_PATIENT[choice]
    person, start = 0, 0
    while start + studies[person] <= position:
        start += studies[person]
        person += 1
    patient_rng = generator(seed, block * BLOCK + start, 2)
    anatomy = draw_anatomy(patient_rng)
    findings = draw_findings(patient_rng)
    before: tuple[Finding, ...] | None = None
    for visit in range(position - start):
        before, findings = (
            findings,
            follow_up(generator(seed, block * BLOCK + start + visit, 4), findings),
        )
    study_rng = generator(seed, index, 5)
    pose = draw_pose(study_rng)
    report, statements = write_report(study_rng, findings, before)
    patient = f"p{block:06d}{'abcdef'[person]}"
    return Description(index, patient, anatomy, pose, findings, report, statements)


@dataclass(frozen=True)
class Study:
    """A rendered study.

    Attributes:
        description: The study without its pixels.
        image: uint8 (size, size).
        masks: bool (len(FINDINGS), size, size); False where absent.
        boxes: float32 (n, 4) x1, y1, x2, y2 in pixels, one per instance; encloses its mask.
        box_classes: int64 (n,) index into `FINDINGS`.
    """

    description: Description
    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    box_classes: np.ndarray


def render_study(seed: int, index: int, size: int) -> Study:
    """Render one study at `size` pixels."""
    study = describe_study(seed, index)
    image, instance_masks = render(study.anatomy, study.pose, study.findings, (seed, index), size)
    masks = np.zeros((len(FINDINGS), size, size), bool)
    boxes, classes = [], []
    for finding, mask in zip(study.findings, instance_masks, strict=True):
        class_id = FINDINGS.index(finding.name)
        masks[class_id] |= mask
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            classes.append(class_id)
    return Study(
        study,
        image,
        masks,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int64),
    )


def oracle_text(study: Description) -> str:
    """Write the template text of all findings of a film, present or absent, reported or not."""
    return template_text(
        (ENTITY[name], "present" if label else "absent")
        for name, label in zip(FINDINGS, study.labels, strict=True)
    )
