"""What is wrong with a split, seen from its images: copies across splits, bad files, shortcuts.

A shortcut is a label that can be told without looking at the film: from its source, its size, the
grey of its border, the form of the files' names. A model that finds one scores well and has learnt nothing.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ecamp.audit.fingerprints import Fingerprint, near_duplicates
from ecamp.audit.splits import EXAMPLES, Finding

BORDER = 2  # rows of the 32 x 32 thumbnail that count as its border
TELLING = 0.8  # AUROC from which a shortcut is reported
SAMPLE = 4000  # images that the small classifier looks at
FOLDS = 5
FORMS = 16  # forms of file names that are told apart, the commonest ones


def audit_images(
    names: Sequence[str], splits: Sequence[str], patients: Sequence[str],
    labels: np.ndarray, classes: Sequence[str], prints: Sequence[Fingerprint | str],
    files: Sequence[str],
) -> list[Finding]:  # fmt: skip
    """Run every check on images.

    Args:
        names, splits, patients: One an image.
        labels: float (n, K), NaN = unknown; K may be 0.
        prints: A fingerprint, or why the image cannot be read.
        files: Where each image lies; the form of its name tells the archive it came from.
    """
    bad = [i for i, p in enumerate(prints) if isinstance(p, str)]
    good = [i for i, p in enumerate(prints) if not isinstance(p, str)]
    found: list[Finding] = []
    if bad:
        shown = tuple(f"{names[i]}: {prints[i]}" for i in bad[:EXAMPLES])
        found.append(
            Finding("unreadable", "error", f"{len(bad)} images cannot be read.", len(bad), shown)
        )
    kept = [p for p in prints if not isinstance(p, str)]
    at = np.array(good, np.int64)
    constant = [names[i] for i, p in zip(good, kept, strict=True) if p.constant]
    if constant:
        found.append(
            Finding("constant", "error", f"{len(constant)} images are of one grey value.",
                    len(constant), tuple(constant[:EXAMPLES]))
        )  # fmt: skip
    double = [k for k, p in zip(good, kept, strict=True) if p.boxes_twice]
    if double:
        count = sum(p.boxes_twice for p in kept)
        shown = tuple(names[k] for k in double[:EXAMPLES])
        found.append(
            Finding("box-twice", "error", f"{count} boxes stand twice on one image.", count, shown)
        )
    found += _copies(at, names, splits, patients, kept)
    found += shortcuts(
        [patients[i] for i in good], labels[at], classes, features(kept, [files[i] for i in good])
    )
    order = {"leak": 0, "error": 1, "note": 2}
    return sorted(found, key=lambda f: order[f.severity])


def _copies(
    at: np.ndarray, names: Sequence[str], splits: Sequence[str], patients: Sequence[str],
    prints: Sequence[Fingerprint],
) -> Iterable[Finding]:  # fmt: skip
    """Equal pixels and near copies: across splits a leak, within one patient's split nothing."""
    by_pixels: dict[str, list[int]] = defaultdict(list)
    for k, p in enumerate(prints):
        if not p.constant:
            by_pixels[p.pixels].append(int(at[k]))
    exact = {
        (a, b) for group in by_pixels.values() for i, a in enumerate(group) for b in group[i + 1 :]
    }
    varied = [k for k, p in enumerate(prints) if not p.constant]
    pairs = near_duplicates([prints[k] for k in varied])
    near = {(int(at[varied[a]]), int(at[varied[b]])) for a, b in pairs} - exact
    for check, pairs_, what in (
        ("same-pixels", exact, "have equal pixels"), ("near-duplicate", near, "are nearly the same film"),
    ):  # fmt: skip
        across = sorted(p for p in pairs_ if splits[p[0]] != splits[p[1]])
        people = sorted(
            p for p in pairs_ if splits[p[0]] == splits[p[1]] and patients[p[0]] != patients[p[1]]
        )
        for severity, chosen, where in (
            ("leak", across, "and stand in different splits"),
            ("note", people, "under different patient ids"),
        ):
            if chosen:
                shown = tuple(
                    f"{names[a]} ({splits[a]}) = {names[b]} ({splits[b]})"
                    for a, b in chosen[:EXAMPLES]
                )
                yield Finding(
                    check,
                    severity,
                    f"{len(chosen)} pairs of images {what} {where}.",
                    len(chosen),
                    shown,
                )


def name_form(path: str) -> str:
    """The form of a file's name: letters become a, digits 9, runs one; the suffix stays.

    Folders and words do not count: many sets are unpacked into one folder a class.
    """
    stem, suffix = os.path.splitext(path.rsplit("/", 1)[-1])
    return re.sub(r"[0-9]+", "9", re.sub(r"[^\W\d_]+", "a", stem)) + suffix


def features(prints: Sequence[Fingerprint], files: Sequence[str]) -> dict[str, np.ndarray]:
    """What could give a label away, by kind: float (n, k) each."""
    forms = [name_form(path) for path in files]
    common = [form for form, _ in Counter(forms).most_common(FORMS)]
    named = np.array([[form == known for known in common] for form in forms], float)
    size = np.array([[p.width, p.height, p.width / p.height] for p in prints], float).reshape(-1, 3)
    thumbs = np.array([p.thumb for p in prints], float).reshape(-1, 32, 32)
    strips = [
        thumbs[:, :BORDER].mean(1), thumbs[:, -BORDER:].mean(1),
        thumbs[:, :, :BORDER].mean(2), thumbs[:, :, -BORDER:].mean(2),
    ]  # fmt: skip
    border = np.concatenate([s.reshape(len(prints), 8, 4).mean(2) for s in strips], 1)
    named = named.reshape(len(prints), -1)
    return {"image size": size, "grey of the border": border, "form of the files' names": named}


def shortcuts(
    patients: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    kinds: dict[str, np.ndarray],
) -> Iterable[Finding]:
    """Labels that a small classifier tells from each kind of feature alone, by patient-wise folds."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    people = np.array(patients)
    chosen = np.random.default_rng(0).permutation(len(people))[:SAMPLE]
    for k, name in enumerate(classes):
        rows = chosen[np.isfinite(labels[chosen, k])]
        truth = labels[rows, k] > 0.5
        if min(truth.sum(), (~truth).sum()) < 4 * FOLDS:
            continue
        for kind, values in kinds.items():
            scores = np.full(len(rows), np.nan)
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
            for fit, out in folds.split(rows, truth, people[rows]):
                if truth[fit].all() or not truth[fit].any():
                    continue
                model = HistGradientBoostingClassifier(
                    max_iter=40, max_depth=3, min_samples_leaf=10, random_state=0
                )
                scores[out] = model.fit(values[rows[fit]], truth[fit]).predict_proba(
                    values[rows[out]]
                )[:, 1]
            told = np.isfinite(scores)
            if not told.any() or truth[told].all() or not truth[told].any():
                continue
            area = float(roc_auc_score(truth[told], scores[told]))
            if area >= TELLING:
                yield Finding(
                    "shortcut", "note",
                    f"'{name}' can be told from the {kind} alone: AUROC {area:.2f} on {told.sum()} images.",
                    int(told.sum()),
                )  # fmt: skip
