"""Splits and label fractions by patient, from hashes: the same on every machine, never drawn.

A patient's rank is the hash of a salt and the patient id. Splits cut the ranks at fixed points,
fractions take patients in rank order until enough images stand. So fractions are nested
(1 % of 10 % of 100 %), adding a patient moves nobody else, and no random state exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np


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
