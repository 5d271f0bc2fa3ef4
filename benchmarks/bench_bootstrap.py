"""1,000 bootstrap replicates of the AUROC: sorted once and weighted, against recomputing.

    pytest benchmarks/bench_bootstrap.py

14 classes of 25,000 images, as ChestX-ray14's test set. Recomputing is timed on a few resamples and
the ratio scaled, because a thousand of them take two minutes.
"""

from __future__ import annotations

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.metrics import roc_auc_score

from benchmarks.harness import measure
from ecamp.metrics.ranking import auroc_replicates
from ecamp.metrics.stats import resample_counts

IMAGES, CLASSES, RESAMPLES, TIMED_RESAMPLES = 25_000, 14, 1000, 10


def test_bootstrap(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((IMAGES, CLASSES)) < 0.05
    scores = rng.normal(truth, 1.0).astype(np.float32)
    counts = resample_counts([f"p{i // 3}" for i in range(IMAGES)], RESAMPLES)

    def ours() -> None:
        for k in range(CLASSES):
            auroc_replicates(scores[:, k], truth[:, k], counts)

    def recompute(weighted: bool) -> None:
        for row in counts[:TIMED_RESAMPLES]:
            index = np.repeat(np.arange(IMAGES), row.astype(np.int64))
            for k in range(CLASSES):
                if weighted:
                    roc_auc_score(truth[:, k], scores[:, k], sample_weight=row)
                else:
                    roc_auc_score(truth[index, k], scores[index, k])

    measure(
        f"bootstrap AUROC {IMAGES}x{CLASSES}x{RESAMPLES}",
        ours,
        {
            f"scikit-learn on {TIMED_RESAMPLES} resamples": lambda: recompute(False),
            f"scikit-learn, weights, {TIMED_RESAMPLES} resamples": lambda: recompute(True),
        },
        benchmark=benchmark,
        rounds=3,
        note=f"per resample the ratio is {RESAMPLES // TIMED_RESAMPLES} times this",
    )
