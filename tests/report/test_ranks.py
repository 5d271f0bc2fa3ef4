"""Mean ranks with intervals: against scipy, ties, gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from ecamp.bench.cell_result import CellFields, CellResult, Score
from ecamp.report.ranks import format_ranks, rank_models
from ecamp.report.summary import StoredCell


def cell(
    dataset: str, pretext: str, value: float | None, spread: np.ndarray | None, seed: int = 0
) -> StoredCell:
    fields = CellFields(
        dataset, f"{dataset}/1", "s", "da", "cls", "vit", pretext, "w", "linear", 1.0, seed
    )
    return StoredCell(CellResult("", "cell", fields, {}, "m", {"m": Score(value)}), spread)


def test_mean_ranks_are_scipys() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (6, 3)) / 4  # settings x models, with ties
    cells = [
        cell(f"d{i}", f"m{j}", values[i, j], rng.normal(values[i, j], 0.1, 200))
        for i in range(6)
        for j in range(3)
    ]
    ranks, settings = rank_models(cells)
    want = np.mean([rankdata(-row) for row in values], axis=0)
    assert settings == 6
    assert {r.model: r.rank for r in ranks} == pytest.approx(
        {f"vit m{j}": want[j] for j in range(3)}
    )
    assert [r.rank for r in ranks] == sorted(r.rank for r in ranks)
    for r in ranks:
        assert r.low is not None
        assert r.high is not None
        assert 1 <= r.low <= r.high <= 3
    assert any("mean rank over 6 settings" in line for line in format_ranks(ranks, settings))


def test_a_model_that_always_wins_is_first_in_every_resample() -> None:
    up, down = np.full(100, 0.9), np.full(100, 0.1)
    cells = [cell(d, m, s[0], s) for d in "ab" for m, s in (("x", up), ("y", down))]
    best, worst = rank_models(cells)[0]
    assert (best.model, best.rank, best.low, best.high, best.first) == ("vit x", 1, 1, 1, 1)
    assert (worst.rank, worst.first) == (2, 0)


def test_settings_without_all_models_are_left_out() -> None:
    cells = [cell(d, m, 0.5, None) for d in "abc" for m in "xy"]
    cells += [cell("d", "x", 0.9, None), cell("e", "x", 0.9, None), cell("e", "y", None, None)]
    ranks, settings = rank_models(cells)
    assert settings == 3
    assert [(r.rank, r.low, r.first) for r in ranks] == [(1.5, None, None)] * 2
    assert rank_models(cells[:2]) == ([], 0)
    assert rank_models([]) == ([], 0)
    assert format_ranks([], 0) == []


def test_a_resample_that_a_place_does_not_define_counts_at_the_others() -> None:
    up, down = np.full(100, 0.9), np.full(100, 0.1)
    gaps = np.where(np.arange(100) < 30, np.nan, 0.9)
    cells = [cell("a", "x", 0.9, up), cell("a", "y", 0.1, down)]
    cells += [cell("b", "x", 0.9, gaps), cell("b", "y", 0.1, down)]
    assert [r.first for r in rank_models(cells)[0]] == [1, 0]
    nothing = np.full(100, np.nan)
    cells = [cell(d, m, v, nothing) for d in "ab" for m, v in (("x", 0.9), ("y", 0.1))]
    assert [(r.rank, r.low, r.first) for r in rank_models(cells)[0]] == [
        (1, None, None), (2, None, None),
    ]  # fmt: skip
