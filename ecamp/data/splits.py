"""Splits and label fractions by patient, from hashes: the same on every machine, never drawn.

A patient's rank is the hash of a salt and the patient id. `hash_split` cuts the ranks at fixed points:
adding a patient moves nobody else. `stratified_split` cuts each stratum's patients in rank order at
its shares: every class has its share in every split, and adding patients can move those at a cut.
Fractions take patients in rank order until enough images stand, so they are nested (1 % of 10 % of
100 %). No random state exists, but in `scikit_split`, which repeats published draws.

Why: docs/decisions.md#our-splits-are-stratified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)


def patient_rank(patient: str, salt: str) -> float:
    """Uniform number in [0, 1) from the salted hash of a patient id."""
    digest = hashlib.sha256(f"{salt}\x00{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hash_split(patient: str, shares: Mapping[str, float], salt: str) -> str:
    """Name the split of a patient.

    Args:
        shares: Split name to share; the shares sum to 1, the order matters.
        salt: Name and version of the protocol.
    """
    rank, edge = patient_rank(patient, salt), 0.0
    names = list(shares)
    for name in names:
        edge += shares[name]
        if rank < edge:
            return name
    return names[-1]


def strata_of(patients: Sequence[str], labels: Sequence[Sequence[int | None]]) -> dict[str, int]:
    """The stratum of each patient: the rarest of the classes that any image of the patient shows.

    So one binary label gives positive or not, exclusive classes give the class.

    Args:
        patients, labels: Of each image; a label counts where it is 1.

    Returns:
        Patient -> index of the class that fewest patients have (of equally rare ones the first); -1
        for a patient without any.
    """
    found: dict[str, set[int]] = {patient: set() for patient in patients}
    for patient, row in zip(patients, labels, strict=True):
        found[patient].update(k for k, value in enumerate(row) if value == 1)
    count: dict[int, int] = {}
    for classes in found.values():
        for k in classes:
            count[k] = count.get(k, 0) + 1
    return {
        patient: min(classes, key=lambda k: (count[k], k), default=-1)
        for patient, classes in found.items()
    }


def stratified_split(
    patients: Sequence[str], strata: Sequence[Hashable], shares: Mapping[str, float], salt: str
) -> dict[str, str]:
    """Split patients so that each stratum has its share in each split, to within one patient.

    Args:
        patients: Each once, in any order. strata: Of each patient.
        shares: Split name to share; the shares sum to 1, the order matters.
        salt: Name and version of the protocol.

    Returns:
        Patient -> split; a function of the set of (patient, stratum) alone.
    """
    grouped: dict[Hashable, list[str]] = {}
    for patient, stratum in zip(patients, strata, strict=True):
        grouped.setdefault(stratum, []).append(patient)
    out = {}
    for group in grouped.values():
        ranked = sorted(group, key=lambda p: (patient_rank(p, salt), p))
        edge, start = 0.0, 0
        for name, share in shares.items():
            edge += share
            end = round(len(ranked) * edge)
            out.update(dict.fromkeys(ranked[start:end], name))
            start = end
    return out


def few_shot(
    ids: Sequence[str], labels: Sequence[Sequence[int | None]], shots: int, salt: str
) -> set[str]:
    """Choose images so that each class has `shots` positives, or all it has: the rarest class first.

    Args:
        ids: Each once, in any order. labels: Of each image; a label counts where it is 1.

    Returns:
        The chosen ids. Those for fewer shots are not always among those for more: an image with two
        classes serves both.
    """
    ranked = sorted(zip(ids, labels, strict=True), key=lambda x: (patient_rank(x[0], salt), x[0]))
    classes = range(len(labels[0]) if labels else 0)
    positives = {k: [name for name, row in ranked if row[k] == 1] for k in classes}
    chosen: set[str] = set()
    for k in sorted(classes, key=lambda k: (len(positives[k]), k)):
        lacking = shots - len(chosen.intersection(positives[k]))
        fresh = [name for name in positives[k] if name not in chosen]
        chosen.update(fresh[: max(0, lacking)])
    return chosen


def scikit_split(items: Sequence[T], held: float | int) -> dict[T, str]:
    """Repeat the draw of GLoRIA and MGCA: held-out items first, then test and validation by halves.

    Args:
        items: In the order of the published code. held: Share, or number, of val and test together.
    """
    from sklearn.model_selection import train_test_split

    train, rest = train_test_split(list(items), test_size=held, random_state=0)
    test, val = train_test_split(rest, test_size=0.5, random_state=0)
    parts = {"train": train, "val": val, "test": test}
    return {item: split for split, part in parts.items() for item in part}


def fraction_index(patients: Sequence[str], fraction: float, draw: int) -> np.ndarray:
    """Choose a nested fraction of the images by whole patients.

    Args:
        patients: Patient of each image.
        fraction: In (0, 1]; 1 takes every image.
        draw: Which draw; different draws are different nested families.

    Returns:
        int64 sorted indices; at least one patient, the smallest number of patients in rank order
        whose images reach `fraction` of all.
    """
    if fraction >= 1 or not patients:
        return np.arange(len(patients), dtype=np.int64)
    by_patient: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        by_patient.setdefault(patient, []).append(index)
    ranked = sorted(by_patient, key=lambda p: (patient_rank(p, f"fraction/{draw}"), p))
    wanted = fraction * len(patients)
    taken: list[int] = []
    for patient in ranked:
        if len(taken) >= wanted:
            break
        taken += by_patient[patient]
    return np.array(sorted(taken), np.int64)


def split_hash(ids: Sequence[str], splits: Sequence[str]) -> str:
    """Hash of who is where: equal lists, equal hash, whatever the order of rows."""
    lines = sorted(f"{split}\t{name}" for name, split in zip(ids, splits, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
