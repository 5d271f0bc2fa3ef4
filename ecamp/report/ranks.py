"""Mean ranks of models over all data sets, tasks and label fractions, with intervals. No torch.

Scores of different tasks cannot be averaged; ranks can. Each setting of the table ranks the models;
resampling every test set gives an interval of the mean rank.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ecamp.metrics.stats import percentile_interval
from ecamp.report.summary import StoredCell, mean_over_seeds

SETTING = ("dataset", "split_hash", "data", "task", "protocol", "fraction")


@dataclass(frozen=True)
class Rank:
    """Mean rank of a model; 1 is best, equal scores share a rank.

    Attributes:
        low, high: 95 % interval over resampled test patients; None without resamples.
        first: Fraction of the resamples in which no model has a better mean rank.
    """

    model: str
    rank: float
    low: float | None
    high: float | None
    first: float | None


def rank_models(cells: list[StoredCell]) -> tuple[list[Rank], int]:
    """Rank models (encoder and pretext) over the settings where all of them have a score.

    Returns:
        Best first; and the number of settings. Empty with fewer than two models or settings.
    """
    table: dict[tuple[object, ...], dict[str, list[StoredCell]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for cell in cells:
        if not cell.result.is_floor:
            fields = cell.result.cell
            table[tuple(getattr(fields, key) for key in SETTING)][
                f"{fields.encoder} {fields.pretext}"
            ].append(cell)
    models = sorted({model for setting in table.values() for model in setting})
    ranks_per_setting, replicate_ranks = [], []
    for _, setting in sorted(table.items(), key=str):
        if len(setting) < len(models):
            continue
        means = [mean_over_seeds(setting[model]) for model in models]
        values = [value for value, _ in means if value is not None]
        if len(values) < len(models):
            continue
        higher = setting[models[0]][0].result.score.higher_is_better
        ranks_per_setting.append(_ranks(np.array(values)[:, None], higher)[:, 0])
        replicates = [scores for _, scores in means if scores is not None]
        if len(replicates) == len(models) and len({len(r) for r in replicates}) == 1:
            replicate_ranks.append(_ranks(np.array(replicates), higher))
    if len(models) < 2 or len(ranks_per_setting) < 2:
        return [], 0
    mean_ranks = np.mean(ranks_per_setting, axis=0)
    complete = (
        len(replicate_ranks) == len(ranks_per_setting)
        and len({s.shape for s in replicate_ranks}) == 1
    )
    replicate_means = _mean_of_defined(np.array(replicate_ranks)) if complete else None
    ranks = []
    for i, model in enumerate(models):
        low, high = percentile_interval(None if replicate_means is None else replicate_means[i])
        first = None
        if replicate_means is not None and (defined := np.isfinite(replicate_means[i])).any():
            first = float((replicate_means[i] <= replicate_means.min(0) + 1e-12)[defined].mean())
        ranks.append(Rank(model, float(mean_ranks[i]), low, high, first))
    return sorted(ranks, key=lambda r: (r.rank, r.model)), len(ranks_per_setting)


def _mean_of_defined(ranks: np.ndarray) -> np.ndarray:
    """Average over settings (the first axis) that a resample defines; NaN where it defines none."""
    known = np.isfinite(ranks)
    count = known.sum(0)
    total = np.where(known, ranks, 0.0).sum(0)
    result: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return result


def _ranks(scores: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Rank the rows of each column of (models, resamples), 1 = best; NaN where a score is NaN."""
    ordered = -scores if higher_is_better else scores
    return np.where(np.isfinite(scores).all(0), rankdata(ordered, axis=0), np.nan)


def format_ranks(ranks: list[Rank], settings: int) -> list[str]:
    """Format lines for a terminal; none without ranks."""
    if not ranks:
        return []
    width = max(len(r.model) for r in ranks)
    lines = [f"mean rank over {settings} settings (data set, task, protocol, labels); 1 is best"]
    for r in ranks:
        between = "" if r.low is None else f"  {r.low:.2f} to {r.high:.2f}"
        first = "" if r.first is None else f"  first in {100 * r.first:.0f} % of resamples"
        lines.append(f"  {r.model:{width}}  {r.rank:.2f}{between}{first}")
    return lines
