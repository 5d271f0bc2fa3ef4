"""Splits and label fractions by patient, from hashes: the same on every machine, never random.

A patient's rank is the hash of a salt and the patient id. `hash_split` cuts the ranks at fixed points:
adding a patient moves no other. `stratified_split` cuts the patients of each stratum in rank order:
every class has its share in every split, and adding patients can move those near a cut. Fractions take
patients in rank order until there are enough images, so they are nested (1 % within 10 % within 100 %).
Only `scikit_split`, which repeats published draws, uses a random state.

Why: docs/decisions.md#our-splits-are-stratified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)


def patient_rank(patient: str, salt: str) -> float:
    """Compute a uniform number in [0, 1) from the salted hash of a patient id."""
    digest = hashlib.sha256(f"{salt}\x00{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hash_split(patient: str, fractions: Mapping[str, float], salt: str) -> str:
    """Return the split of a patient.

    Args:
        fractions: Split name to fraction; the fractions sum to 1, the order matters.
        salt: Name and version of the splits.
    """
    rank, edge = patient_rank(patient, salt), 0.0
    names = list(fractions)
    for name in names:
        edge += fractions[name]
        if rank < edge:
            return name
    return names[-1]


def patient_strata(
    patients: Sequence[str], labels: Sequence[Sequence[int | None]]
) -> dict[str, int]:
    """Assign each patient the rarest class that any image of the patient shows.

    With one binary label that is positive or negative, with exclusive classes the class.

    Args:
        patients, labels: Of each image; a label counts if it is 1.

    Returns:
        Patient -> index of the class that the fewest patients have (the first of equally rare
        ones); -1 for a patient without any class.
    """
    classes_of: dict[str, set[int]] = {patient: set() for patient in patients}
    for patient, row in zip(patients, labels, strict=True):
        classes_of[patient].update(k for k, value in enumerate(row) if value == 1)
    count: dict[int, int] = {}
    for classes in classes_of.values():
        for k in classes:
            count[k] = count.get(k, 0) + 1
    return {
        patient: min(classes, key=lambda k: (count[k], k), default=-1)
        for patient, classes in classes_of.items()
    }


def stratified_split(
    patients: Sequence[str], strata: Sequence[Hashable], fractions: Mapping[str, float], salt: str
) -> dict[str, str]:
    """Split patients so that each stratum has its share in each split, to within one patient.

    Args:
        patients: Each once, in any order.
        strata: Stratum of each patient.
        fractions: Split name to fraction; the fractions sum to 1, the order matters.
        salt: Name and version of the splits.

    Returns:
        Patient -> split; depends only on the set of (patient, stratum).
    """
    grouped: dict[Hashable, list[str]] = {}
    for patient, stratum in zip(patients, strata, strict=True):
        grouped.setdefault(stratum, []).append(patient)
    split_of = {}
    for group in grouped.values():
        ranked = sorted(group, key=lambda p: (patient_rank(p, salt), p))
        edge, start = 0.0, 0
        for name, share in fractions.items():
            edge += share
            end = round(len(ranked) * edge)
            split_of.update(dict.fromkeys(ranked[start:end], name))
            start = end
    return split_of


def few_shot(
    ids: Sequence[str], labels: Sequence[Sequence[int | None]], shots: int, salt: str
) -> set[str]:
    """Choose images so that each class has `shots` positives, or all it has; rarest class first.

    Args:
        ids: Each once, in any order.
        labels: Of each image; a label counts if it is 1.
        shots: Positives per class.
        salt: Name and version of the choice.

    Returns:
        The chosen ids. Those for fewer shots are not always a subset of those for more: an image
        with two classes counts for both.
    """
    ranked = sorted(zip(ids, labels, strict=True), key=lambda x: (patient_rank(x[0], salt), x[0]))
    classes = range(len(labels[0]) if labels else 0)
    positives = {k: [name for name, row in ranked if row[k] == 1] for k in classes}
    chosen: set[str] = set()
    for k in sorted(classes, key=lambda k: (len(positives[k]), k)):
        lacking = shots - len(chosen.intersection(positives[k]))
        candidates = [name for name in positives[k] if name not in chosen]
        chosen.update(candidates[: max(0, lacking)])
    return chosen


def scikit_split(items: Sequence[T], held_out: float | int) -> dict[T, str]:
    """Repeat the draw of GLoRIA and MGCA: held-out items first, then halved into test and validation.

    Args:
        items: In the order of the published code.
        held_out: Fraction, or number, of val and test together.
    """
    from sklearn.model_selection import train_test_split

    train, rest = train_test_split(list(items), test_size=held_out, random_state=0)
    test, val = train_test_split(rest, test_size=0.5, random_state=0)
    parts = {"train": train, "val": val, "test": test}
    return {item: split for split, part in parts.items() for item in part}


def fraction_index(patients: Sequence[str], fraction: float, draw: int) -> np.ndarray:
    """Choose a nested fraction of the images by whole patients.

    Args:
        patients: Patient of each image.
        fraction: In (0, 1]; 1 takes every image.
        draw: Number of the draw; different draws are different nested families.

    Returns:
        int64 (n,) sorted indices: the images of the fewest patients in rank order, at least one, that
        reach `fraction` of all images.
    """
    if fraction >= 1 or not patients:
        return np.arange(len(patients), dtype=np.int64)
    by_patient: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        by_patient.setdefault(patient, []).append(index)
    ranked = sorted(by_patient, key=lambda p: (patient_rank(p, f"fraction/{draw}"), p))
    target = fraction * len(patients)
    taken: list[int] = []
    for patient in ranked:
        if len(taken) >= target:
            break
        taken += by_patient[patient]
    return np.array(sorted(taken), np.int64)


def split_hash(ids: Sequence[str], splits: Sequence[str]) -> str:
    """Hash ids with their splits; the order of rows does not matter."""
    lines = sorted(f"{split}\t{name}" for name, split in zip(ids, splits, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
