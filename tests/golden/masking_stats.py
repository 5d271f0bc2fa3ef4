"""masking_stats.json: how often each position is masked, seed by seed and against probabilities."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.published.pretraining import masking
from ecamp.published.pretraining.masking import Vocabulary
from tests.golden.check import EXACT, Check, compare, read_json
from tests.golden.masking import head_checks, unknown, vocabulary_of

FILE = "masking_stats.json"
STANDARD_ERRORS = 4.5
FIELDS = {
    "id", "report", "ids", "n_tokens", "runs", "first_seed", "count", "adjacent_both",
    "total_masked_hist",
}  # fmt: skip


def checks(folder: Path) -> Iterator[Check]:
    """Counts of our runs with the recorded seeds, and recorded counts against probabilities."""
    content = read_json(folder / FILE)
    vocabulary, _ = vocabulary_of(folder)
    yield from unknown(FILE, content, {"head", "stats"})
    yield from head_checks(FILE, content["head"], vocabulary)
    for entry in content["stats"]:
        yield from unknown(f"{FILE}/{entry['id']}", entry, FIELDS)
        yield from _entry(f"{FILE}/report {entry['id']}", entry, vocabulary)


def _entry(name: str, entry: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Check]:
    ids, runs, length = entry["ids"], entry["runs"], entry["n_tokens"]
    plan = masking.plan(ids, vocabulary)
    masked = np.array(
        [
            masking.mask(ids, plan, vocabulary, random.Random(entry["first_seed"] + run))
            for run in range(runs)
        ]
    ) == vocabulary.mask  # fmt: skip
    both = (masked[:, :-1] & masked[:, 1:]).sum(0)[: length - 1]
    yield compare(f"{name}/count", masked.sum(0), np.array(entry["count"]), EXACT)
    yield compare(f"{name}/adjacent_both", both, np.array(entry["adjacent_both"]), EXACT)
    totals = {str(total): count for total, count in Counter(masked.sum(1).tolist()).items()}
    same = totals == entry["total_masked_hist"]
    yield Check(f"{name}/total_masked_hist", 0.0 if same else float("nan"), EXACT)
    expected = probabilities(ids, plan, vocabulary)
    error = np.sqrt(runs * expected * (1 - expected))
    off = np.abs(np.array(entry["count"]) - runs * expected)
    worst = np.divide(off, error, out=np.where(off > 1e-9, np.inf, 0.0), where=error > 0).max()
    yield Check(f"{name}/count in standard errors", float(worst), STANDARD_ERRORS)


def probabilities(ids: Sequence[int], plan: masking.Plan, vocabulary: Vocabulary) -> np.ndarray:
    """Probability of each position to hold [MASK]: a piece has its head's, an entity's none."""
    expected = np.zeros(len(ids))
    literal = np.array(ids) == vocabulary.mask
    head = 0.0
    for i in range(1, plan.end):
        if i in plan.heads:
            head = 0.0 if i in plan.entities else plan.p_other
        expected[i] = head
    expected[list(plan.entities)] = masking.P_ENTITY
    return np.where(literal, 1.0, expected)
