"""Checks of images: copies across splits, bad files, shortcuts.

A shortcut is a label that can be predicted without looking at the film: from its source, its size, the
grey of its border, the pattern of file names. A model that uses one scores well and has learnt nothing.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ecamp.audit.fingerprints import Fingerprint, near_duplicates
from ecamp.audit.splits import EXAMPLES, Finding, by_severity

BORDER = 2  # rows and columns of the 32 x 32 thumbnail that count as its border
SHORTCUT_AUROC = 0.8  # AUROC from which a shortcut is reported
SAMPLE = 4000  # images that the small classifier is trained and tested on
FOLDS = 5
PATTERNS = 16  # most common patterns of file names that are distinguished


def audit_images(
    names: Sequence[str], splits: Sequence[str], patients: Sequence[str],
    labels: np.ndarray, classes: Sequence[str], prints: Sequence[Fingerprint | str],
    files: Sequence[str],
) -> list[Finding]:  # fmt: skip
    """Run every check on images.

    Args:
        names, splits, patients: One per image.
        labels: float (n, K), NaN = unknown; K may be 0.
        classes: Names of the labels.
        prints: Per image its fingerprint, or the reason why it cannot be read.
        files: Path of each image; the pattern of its name can reveal the archive that it came from.

    Returns:
        Findings, leaks first.
    """
    bad = [i for i, p in enumerate(prints) if isinstance(p, str)]
    good = [i for i, p in enumerate(prints) if not isinstance(p, str)]
    findings: list[Finding] = []
    if bad:
        examples = tuple(f"{names[i]}: {prints[i]}" for i in bad[:EXAMPLES])
        findings.append(
            Finding("unreadable", "error", f"{len(bad)} images cannot be read.", len(bad), examples)
        )
    kept = [p for p in prints if not isinstance(p, str)]
    index = np.array(good, np.int64)
    constant = [names[i] for i, p in zip(good, kept, strict=True) if p.constant]
    if constant:
        findings.append(
            Finding("constant", "error", f"{len(constant)} images have a single grey value.",
                    len(constant), tuple(constant[:EXAMPLES]))
        )  # fmt: skip
    duplicates = [k for k, p in zip(good, kept, strict=True) if p.boxes_twice]
    if duplicates:
        count = sum(p.boxes_twice for p in kept)
        examples = tuple(names[k] for k in duplicates[:EXAMPLES])
        message = f"{count} boxes are duplicates of another on the same image."
        findings.append(Finding("box-twice", "error", message, count, examples))
    findings += _copies(index, names, splits, patients, kept)
    findings += shortcuts(
        [patients[i] for i in good], labels[index], classes,
        features(kept, [files[i] for i in good]),
    )  # fmt: skip
    return by_severity(findings)


def _copies(
    index: np.ndarray, names: Sequence[str], splits: Sequence[str], patients: Sequence[str],
    prints: Sequence[Fingerprint],
) -> Iterable[Finding]:  # fmt: skip
    """Report equal pixels and near copies: a leak across splits, a note under two patient ids."""
    by_pixels: dict[str, list[int]] = defaultdict(list)
    for k, p in enumerate(prints):
        if not p.constant:
            by_pixels[p.pixels].append(int(index[k]))
    exact = {
        (a, b) for group in by_pixels.values() for i, a in enumerate(group) for b in group[i + 1 :]
    }
    varied = [k for k, p in enumerate(prints) if not p.constant]
    pairs = near_duplicates([prints[k] for k in varied])
    near = {(int(index[varied[a]]), int(index[varied[b]])) for a, b in pairs} - exact
    for check, copies, property_ in (
        ("same-pixels", exact, "have equal pixels"), ("near-duplicate", near, "are nearly the same film"),
    ):  # fmt: skip
        across = sorted(p for p in copies if splits[p[0]] != splits[p[1]])
        within = sorted(
            p for p in copies if splits[p[0]] == splits[p[1]] and patients[p[0]] != patients[p[1]]
        )
        for severity, chosen, relation in (
            ("leak", across, "and are in different splits"),
            ("note", within, "under different patient ids"),
        ):
            if chosen:
                examples = tuple(
                    f"{names[a]} ({splits[a]}) = {names[b]} ({splits[b]})"
                    for a, b in chosen[:EXAMPLES]
                )
                message = f"{len(chosen)} pairs of images {property_} {relation}."
                yield Finding(check, severity, message, len(chosen), examples)


def name_pattern(path: str) -> str:
    """Reduce a file name to its pattern: runs of letters become a, of digits 9; the suffix stays.

    Folders and words are ignored: many sets are unpacked into one folder per class.
    """
    stem, suffix = os.path.splitext(path.rsplit("/", 1)[-1])
    return re.sub(r"[0-9]+", "9", re.sub(r"[^\W\d_]+", "a", stem)) + suffix


def features(prints: Sequence[Fingerprint], files: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute features that could reveal a label, by name: float (n, k) each."""
    patterns = [name_pattern(path) for path in files]
    common = [pattern for pattern, _ in Counter(patterns).most_common(PATTERNS)]
    one_hot = np.array([[pattern == other for other in common] for pattern in patterns], float)
    size = np.array([[p.width, p.height, p.width / p.height] for p in prints], float).reshape(-1, 3)
    thumbs = np.array([p.thumb for p in prints], float).reshape(-1, 32, 32)
    strips = [
        thumbs[:, :BORDER].mean(1), thumbs[:, -BORDER:].mean(1),
        thumbs[:, :, :BORDER].mean(2), thumbs[:, :, -BORDER:].mean(2),
    ]  # fmt: skip
    border = np.concatenate([s.reshape(len(prints), 8, 4).mean(2) for s in strips], 1)
    one_hot = one_hot.reshape(len(prints), -1)
    return {"image size": size, "grey of the border": border, "pattern of the file names": one_hot}


def shortcuts(
    patients: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    groups: dict[str, np.ndarray],
) -> Iterable[Finding]:
    """Report labels that a small classifier predicts from one group of features alone.

    Args:
        labels: float (n, K), NaN = unknown.
        groups: Name of the group -> float (n, k). AUROC is measured by patient-wise folds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    patient_ids = np.array(patients)
    chosen = np.random.default_rng(0).permutation(len(patient_ids))[:SAMPLE]
    for k, name in enumerate(classes):
        rows = chosen[np.isfinite(labels[chosen, k])]
        truth = labels[rows, k] > 0.5
        if min(truth.sum(), (~truth).sum()) < 4 * FOLDS:
            continue
        for group, values in groups.items():
            scores = np.full(len(rows), np.nan)
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
            for fit, held_out in folds.split(rows, truth, patient_ids[rows]):
                if truth[fit].all() or not truth[fit].any():
                    continue
                model = HistGradientBoostingClassifier(
                    max_iter=40, max_depth=3, min_samples_leaf=10, random_state=0
                )
                scores[held_out] = model.fit(values[rows[fit]], truth[fit]).predict_proba(
                    values[rows[held_out]]
                )[:, 1]
            scored = np.isfinite(scores)
            if not scored.any() or truth[scored].all() or not truth[scored].any():
                continue
            auroc = float(roc_auc_score(truth[scored], scores[scored]))
            if auroc >= SHORTCUT_AUROC:
                yield Finding(
                    "shortcut", "note",
                    f"'{name}' can be predicted from the {group} alone: AUROC {auroc:.2f} on "
                    f"{scored.sum()} images.",
                    int(scored.sum()),
                )  # fmt: skip
