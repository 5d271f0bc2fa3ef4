"""Results of a run as rows: means over seeds, intervals, paired differences, floors. No torch.

`low`-`high` is the 95 % interval over resampled test patients, `sd` the standard deviation over
seeds; the two are never combined. A difference to the baseline is paired: both sides saw the same
resamples. Differences are corrected over the table (Holm).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecamp.bench.cell_result import CellResult
from ecamp.errors import CorruptFileError
from ecamp.metrics.paired import holm
from ecamp.metrics.stats import is_better, percentile_interval


@dataclass(frozen=True)
class StoredCell:
    """One cell as read from a run folder.

    Attributes:
        replicates: float64 (resamples,) of the main metric, or None.
        folder: The cell's folder.
    """

    result: CellResult
    replicates: np.ndarray | None
    folder: Path = Path()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        value: Mean of the primary metric over seeds; None when undefined.
        low, high: 95 % interval of that mean over resampled test patients.
        sd: Standard deviation over seeds (None for one seed). train: Training images, mean over seeds.
        delta, delta_low, delta_high: Paired difference to the baseline pretext.
        p_holm: Two-sided bootstrap p, Holm-corrected over the table.
        verdict: `better`, `worse`, `tie`, or empty for the baseline itself.
        floor, floor_name: Best trivial score of that split and fraction.
        below_floor: Whether the score does not beat it.
        higher_is_better: Direction of the metric; False for an error, a distance or a rank.
    """

    dataset: str
    split_id: str
    split_hash: str
    data: str
    task: str
    protocol: str
    encoder: str
    pretext: str
    fraction: float
    metric: str
    seeds: int
    train: int
    test: int
    value: float | None
    low: float | None
    high: float | None
    sd: float | None
    delta: float | None
    delta_low: float | None
    delta_high: float | None
    p_holm: float | None
    verdict: str
    floor: float | None
    floor_name: str | None
    below_floor: bool
    reason: str | None
    higher_is_better: bool = True
    data_mark: str = ""

    @property
    def split_label(self) -> str:
        """Label of the split: its id and the beginning of its hash."""
        return f"{self.split_id} {self.split_hash[:8]}{self.data_mark}"


def read_run(path: Path) -> tuple[list[StoredCell], list[str]]:
    """Read the finished cells of a run, in the order of its plan.

    Left out, with a warning: damaged cells, and those that the plan does not contain any more: they
    are of other data, another plugin or another version, and no mean may mix them in.
    """
    cells, warnings, unplanned = [], [], 0
    order = _planned_order(path)
    for folder in sorted(
        (path / "cells").glob("*"), key=lambda f: (order.get(f.name, len(order)), f)
    ):
        file = folder / "result.json"
        if not file.exists():
            continue
        if order and folder.name not in order:
            unplanned += 1
            continue
        try:
            result = CellResult.from_json(json.loads(file.read_text(encoding="utf-8")))
            replicates = None
            with (
                (folder / "predictions.npz").open("rb") as stream,
                np.load(stream, allow_pickle=False) as arrays,
            ):
                name = f"replicates/{result.primary}"
                if name in arrays.files:
                    replicates = arrays[name]
        except CorruptFileError as error:
            warnings.append(f"cells/{folder.name}: {error} Left out; run the same bench again")
            continue
        except Exception as error:  # a torn file fails in json, zipfile, zlib or numpy
            warnings.append(f"cells/{folder.name}: damaged ({type(error).__name__}), left out; "
                            "run the same bench again")  # fmt: skip
            continue
        cells.append(StoredCell(result, replicates, folder))
    if unplanned:
        warnings.append(
            f"{unplanned} older cells are left out: computed from other data, plugins or versions "
            "than the plan of the last run"
        )
    return cells, warnings


def _planned_order(path: Path) -> dict[str, int]:
    """Read the order of the cells from `plan.json`; empty where it cannot be read."""
    try:
        plan = json.loads((path / "plan.json").read_text(encoding="utf-8"))
        return {cell["id"]: index for index, cell in enumerate(plan["cells"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def summarise(cells: list[StoredCell], baseline: str = "none") -> list[Row]:
    """Group cells into rows, sorted by data set, task, protocol, encoder, fraction, pretext.

    Tasks keep the order in which `cells` first name them: that of the recipe.
    """
    groups: dict[tuple[Any, ...], list[StoredCell]] = defaultdict(list)
    floors: dict[tuple[Any, ...], list[StoredCell]] = defaultdict(list)
    for cell in cells:
        c = cell.result.cell
        split = (c.dataset, c.split_id, c.split_hash, c.data, c.task)
        if cell.result.is_floor:
            floors[(*split, c.fraction)].append(cell)
        else:
            groups[(*split, c.protocol, c.encoder, c.fraction, c.pretext)].append(cell)
    rows = [_row(key, members, groups, floors, baseline) for key, members in groups.items()]
    rows = _mark_data(rows)
    tasks = {task: index for index, task in enumerate(dict.fromkeys(row.task for row in rows))}
    rows.sort(
        key=lambda r: (r.dataset, r.split_label, tasks[r.task], r.protocol, r.encoder, r.fraction,
                       r.pretext != baseline, r.pretext)
    )  # fmt: skip
    return _holm(rows)


def _mark_data(rows: list[Row]) -> list[Row]:
    """Mark rows whose split names more than one content: other images under the same ids."""
    contents: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in rows:
        contents[row.dataset, row.split_id, row.split_hash].add(row.data)
    return [
        replace(row, data_mark=f" data {row.data[:8]}")
        if len(contents[row.dataset, row.split_id, row.split_hash]) > 1
        else row
        for row in rows
    ]


def mean_over_seeds(members: list[StoredCell]) -> tuple[float | None, np.ndarray | None]:
    """Average over seeds; return the mean and its replicates (pairing resample with resample)."""
    values = [m.result.score.value for m in members]
    if any(v is None for v in values):
        return None, None
    replicates = [m.replicates for m in members if m.replicates is not None]
    complete = len(replicates) == len(members) and len({len(p) for p in replicates}) == 1
    return float(np.mean([v for v in values if v is not None])), np.mean(
        replicates, axis=0
    ) if complete else None


def _row(
    key: tuple[Any, ...],
    members: list[StoredCell],
    groups: dict[tuple[Any, ...], list[StoredCell]],
    floors: dict[tuple[Any, ...], list[StoredCell]],
    baseline: str,
) -> Row:
    dataset, split_id, split_hash, data, task, protocol, encoder, fraction, pretext = key
    first = members[0].result
    higher = first.score.higher_is_better
    value, replicates = mean_over_seeds(members)
    low, high = percentile_interval(replicates)
    values = [m.result.metrics[first.primary].value for m in members]
    defined = [v for v in values if v is not None]
    sd = float(np.std(defined, ddof=1)) if value is not None and len(values) > 1 else None
    delta = delta_low = delta_high = p = None
    other = groups.get((*key[:-1], baseline))
    if pretext != baseline and other and value is not None:
        # Only seeds that both sides have, so that the label draws are paired too.
        shared = {m.result.cell.seed for m in members} & {o.result.cell.seed for o in other}
        mean, mean_replicates = mean_over_seeds(
            [m for m in members if m.result.cell.seed in shared]
        )
        base, base_replicates = mean_over_seeds([o for o in other if o.result.cell.seed in shared])
        if shared and mean is not None and base is not None:
            delta = mean - base
            if mean_replicates is not None and base_replicates is not None:
                difference = mean_replicates - base_replicates
                delta_low, delta_high = percentile_interval(difference)
                p = two_sided(difference)
    floor_name, floor = _best_floor(
        floors.get((dataset, split_id, split_hash, data, task, fraction), [])
    )
    # Each seed draws its own fraction of whole patients, so their sizes differ a little.
    train = round(float(np.mean([m.result.counts["train"] for m in members])))
    return Row(
        dataset, split_id, split_hash, data, task, protocol, encoder, pretext, fraction,
        first.primary, len(members), train, first.counts["test"],
        value, low, high, sd, delta, delta_low, delta_high, p, "", floor, floor_name,
        value is not None and floor is not None and not is_better(value, floor, higher),
        first.score.reason, higher,
    )  # fmt: skip


def two_sided(difference: np.ndarray) -> float | None:
    """Compute the bootstrap p of `no difference`: twice the smaller tail.

    Where fewer than ten resamples lie beyond zero, their count is imprecise, and with 1,000
    resamples no p could fall below 0.002: Holm over 25 rows would call every difference a tie. The
    normal tail at the bootstrap's own standard error is used there
    (docs/decisions.md#p-values-from-the-normal-tail).
    """
    defined = difference[np.isfinite(difference)]
    if len(defined) < 20:
        return None
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    if tail >= 10:
        return min(1.0, 2 * (tail + 1) / (len(defined) + 1))
    std = float(defined.std(ddof=1))
    if std == 0.0:
        return 1.0 if defined[0] == 0 else 2 / (len(defined) + 1)
    return math.erfc(abs(float(defined.mean())) / std / math.sqrt(2))


def _best_floor(floors: list[StoredCell]) -> tuple[str | None, float | None]:
    best: tuple[str | None, float | None] = (None, None)
    for cell in floors:
        value = cell.result.score.value
        higher = cell.result.score.higher_is_better
        if value is not None and (best[1] is None or is_better(value, best[1], higher)):
            best = (cell.result.cell.floor, value)
    return best


def _holm(rows: list[Row]) -> list[Row]:
    """Apply Holm's step-down correction to all differences of the table, and set the verdicts."""
    corrected = holm([row.p_holm for row in rows])
    out = []
    for index, row in enumerate(rows):
        p_holm = corrected[index]
        verdict = ""
        if row.delta is not None:
            significant = p_holm is not None and p_holm < 0.05
            better = is_better(row.delta, 0.0, row.higher_is_better)
            verdict = ("better" if better else "worse") if significant else "tie"
            if p_holm is None:
                verdict = ""  # without resamples nothing can be said
        out.append(Row(**{**asdict(row), "p_holm": p_holm, "verdict": verdict}))
    return out


def format_rows(rows: list[Row], form: str) -> str:
    """Render rows as `table`, `json`, `csv` or `md`."""
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=2, allow_nan=False)
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        return buffer.getvalue().rstrip()
    lines = [display(row) for row in rows]
    if form == "md":
        head = list(COLUMNS)
        body = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body])
    return _plain_table(rows, lines)


COLUMNS = ("data set, split", "task", "protocol", "encoder", "labels", "pretext", "score", "95 % interval",
           "sd seeds", "difference to baseline", "floor", "")  # fmt: skip


def display(row: Row) -> list[str]:
    """Format the columns of a row for people."""

    def number(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.3f}"

    interval = "-" if row.low is None else f"{number(row.low)} to {number(row.high)}"
    delta = number(row.delta, "+")
    if row.delta_low is not None:
        delta += f" [{number(row.delta_low, '+')}, {number(row.delta_high, '+')}]"
    mark = ", ".join(filter(None, [row.verdict, "below floor" if row.below_floor else ""]))
    floor = "-" if row.floor is None else f"{row.floor:.3f} {row.floor_name}"
    score = f"{number(row.value)}" if row.value is not None else f"null: {row.reason}"
    return [row.split_label, f"{row.task} {metric_label(row)}", row.protocol, row.encoder,
            f"{100 * row.fraction:g} % ({row.train})", row.pretext, score, interval,
            number(row.sd), delta if row.delta is not None else "", floor, mark]  # fmt: skip


def metric_label(row: Row) -> str:
    """Return the name of the metric, with its direction where lower is better."""
    return row.metric if row.higher_is_better else f"{row.metric} (lower is better)"


def _plain_table(rows: list[Row], lines: list[list[str]]) -> str:
    """Format a table for a terminal, one heading per data set, task and protocol: lines stay short."""
    out: list[str] = []
    headings = ("labels", "pretext", "score", "95 % interval", "sd", "difference", "")
    columns = (4, 5, 6, 7, 8, 9, 11)
    widths = [
        max([len(headings[i]), *(len(line[p]) for line in lines)]) for i, p in enumerate(columns)
    ]
    current_group = None
    for row, line in zip(rows, lines, strict=True):
        group = (row.split_label, row.task, row.protocol, row.encoder)
        if group != current_group:  # another split is another test: never under one heading
            current_group = group
            out += ["", f"{row.dataset} ({row.split_id}, split {row.split_hash}{row.data_mark})  {line[1]}  "
                        f"{row.protocol}  {row.encoder}  test {row.test}  seeds {row.seeds}"]  # fmt: skip
            out.append(
                "  " + "  ".join(t.ljust(w) for t, w in zip(headings, widths, strict=True)).rstrip()
            )
            previous = None
        if row.fraction != previous:
            previous = row.fraction
            if row.floor is not None:
                label = f"floor: {row.floor_name}"
                out.append(f"  {line[4]:{widths[0]}}  {label}  {row.floor:.3f}")
        cells = [line[p].ljust(w) for p, w in zip(columns, widths, strict=True)]
        out.append("  " + "  ".join(cells).rstrip())
    return "\n".join(out).strip("\n")
