"""Retrieval between images and reports: recall at 1, 5, 10 and median rank, in both directions.

Every image of the test split is a query for its report among the reports of all images, and every
report for its image. Identical reports count as correct: "no acute findings" of another patient is
the same answer. Queries are resampled by patient; the gallery is fixed, so the interval holds for
this collection only, not for a larger one.
"""

from __future__ import annotations

import math

import numpy as np

from ecamp.metrics.stats import Metric, weighted_mean_replicates

CUTOFFS = (1, 5, 10)
BLOCK = 1024  # images whose similarities are computed at once
DIGITS = 9  # cosines this close are equal: products differ in the last bits by position


def score_retrieval(
    images: np.ndarray, texts: np.ndarray, text_of_image: np.ndarray, counts: np.ndarray
) -> dict[str, Metric]:
    """Compute all retrieval metrics.

    Args:
        images: float (n, width) embeddings. texts: float (m, width), one per distinct report.
        text_of_image: int (n,) the report of each image; every report has an image.
        counts: (resamples, n) from `resample_counts`.

    Returns:
        `i2t_recall@k`, `t2i_recall@k`, `i2t_median_rank`, `t2i_median_rank` (1 is best),
        `mean_recall` over both directions and all k, and `chance_recall@k`, that of shuffled
        answers (the floor).
    """
    ranks = dict(zip(("i2t", "t2i"), retrieval_ranks(images, texts, text_of_image), strict=True))
    result: dict[str, Metric] = {}
    for name, rank in ranks.items():
        for k in CUTOFFS:
            hit = (rank <= k).astype(np.float64)
            result[f"{name}_recall@{k}"] = Metric.of(
                float(hit.mean()), weighted_mean_replicates(hit, counts)
            )
        all_images = np.ones((1, len(rank)))
        median = float(_medians(rank, all_images)[0])
        result[f"{name}_median_rank"] = Metric.of(median, _medians(rank, counts)).minimised()
    recalls = [metric for name, metric in result.items() if "recall" in name]
    mean_replicates = np.mean([m.replicates for m in recalls if m.replicates is not None], axis=0)
    result["mean_recall"] = Metric.of(float(np.mean([m.value for m in recalls])), mean_replicates)
    correct_counts = np.bincount(text_of_image)[text_of_image]
    for k in CUTOFFS:
        chance = np.array(
            [_chance(len(correct_counts), int(correct), k) for correct in correct_counts]
        )
        result[f"chance_recall@{k}"] = Metric.of(
            float(chance.mean()), weighted_mean_replicates(chance, counts)
        )
    return result


def retrieval_ranks(
    images: np.ndarray, texts: np.ndarray, text_of_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rank the best correct answer for each query, among the answers of all images.

    Equal similarities share their ranks: an encoder with one embedding for everything ranks in the
    middle, not first.

    Args: As `score_retrieval`.

    Returns:
        float64 (n,) from image to text, and (n,) from each image's text to image; 1 is best.
    """
    x, y = _directions(images), _directions(texts)
    copies = np.bincount(text_of_image, minlength=len(y)).astype(np.float64)
    to_text = np.zeros(len(x))
    best = np.full(len(y), -np.inf)  # similarity of a text's most similar correct image
    starts = range(0, len(x), BLOCK)
    for start in starts:
        similarity = np.round(x[start : start + BLOCK] @ y.T, DIGITS)
        answer = text_of_image[start : start + BLOCK]
        answer_similarity = similarity[np.arange(len(answer)), answer]
        np.maximum.at(best, answer, answer_similarity)
        above = (similarity > answer_similarity[:, None]) @ copies
        equal = (similarity == answer_similarity[:, None]) @ copies - copies[answer]
        to_text[start : start + BLOCK] = 1 + above + equal / 2
    above, equal = np.zeros(len(y)), np.zeros(len(y))
    for start in starts:
        similarity = np.round(x[start : start + BLOCK] @ y.T, DIGITS)
        answer = text_of_image[start : start + BLOCK]
        similarity[np.arange(len(answer)), answer] = -np.inf  # correct images do not compete
        above += (similarity > best).sum(0)
        equal += (similarity == best).sum(0)
    return to_text, (1 + above + equal / 2)[text_of_image]


def _directions(embeddings: np.ndarray) -> np.ndarray:
    values = embeddings.astype(np.float64)
    result: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return result


def _medians(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the median of the ranks in each resample; of an even number the mean of the middle two."""
    order = np.argsort(ranks, kind="stable")
    below = np.cumsum(counts[:, order].astype(np.float64), axis=1)
    half = below[:, -1:] / 2
    low, high = (below < half).sum(1), (below <= half).sum(1)
    last = len(ranks) - 1
    middle = (ranks[order][np.minimum(low, last)] + ranks[order][np.minimum(high, last)]) / 2
    return np.where(below[:, -1] > 0, middle, np.nan)


def _chance(total: int, correct: int, k: int) -> float:
    """Compute the chance that k of `total` answers, drawn without replacement, contain a correct one."""
    return 1 - math.comb(total - correct, k) / math.comb(total, k) if k <= total else 1.0
