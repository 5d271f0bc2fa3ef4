"""Two models (or recipes) on the same test images: paired differences with their tests. No torch.

A difference is second minus first. Cells are paired where data set, split, task, protocol, fraction
and seed agree; splits that differ are refused, not mixed. The patient bootstrap decides; DeLong
(AUROC), McNemar (accuracy) and Wilcoxon (Dice per image) are shown as cross-checks.

Why: docs/decisions.md#the-patient-bootstrap-decides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ecamp.bench.run_folder import read_predictions
from ecamp.errors import DataError, UsageError
from ecamp.metrics.paired import delong_p, holm, mcnemar_p, wilcoxon_p
from ecamp.metrics.stats import is_better, percentile_interval
from ecamp.report.selection import Selection
from ecamp.report.summary import StoredCell, read_run, two_sided

PAIRED = ("dataset", "task", "protocol", "fraction", "seed")
MODEL = ("encoder", "pretext")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """One line of a comparison: a metric on one data set, protocol and label fraction.

    Attributes:
        first, second: Means over the shared seeds. delta: second - first.
        low, high: 95 % interval of the difference over resampled test patients.
        p: Two-sided bootstrap p; p_holm: corrected over all main lines.
        delong, mcnemar, wilcoxon: p of the cross-check; None where it does not apply. McNemar and
            Wilcoxon of several seeds: the median.
        verdict: `better`, `worse` or `tie`, of the second; by p_holm.
        higher_is_better: Direction of the metric.
    """

    dataset: str
    task: str
    protocol: str
    fraction: float
    model: str
    metric: str
    main: bool
    seeds: int
    images: int
    first: float | None
    second: float | None
    delta: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    delong: float | None
    mcnemar: float | None
    wilcoxon: float | None
    verdict: str = ""
    higher_is_better: bool = True


def compare(
    first: Selection, second: Selection, metrics: Sequence[str] = ()
) -> tuple[list[Difference], list[str]]:
    """Compute all differences between two selections.

    Args:
        metrics: In addition to each task's main metric: names, or `*` for all that have resamples.

    Returns:
        Rows, and warnings (damaged cells that were left out).

    Raises:
        UsageError: Nothing to pair, or several cells for one setting.
        DataError: A data set's test split differs between the two.
    """
    warnings: list[str] = []
    sides = [_cells(selection, warnings) for selection in (first, second)]
    _check_splits(sides, (first, second))
    warnings += _changed_data(sides, (first, second))
    by_model = any(len({_model(c) for c in side}) > 1 for side in sides)
    by_setting = [
        _by_setting(side, by_model, selection)
        for side, selection in zip(sides, (first, second), strict=True)
    ]
    shared = sorted(set(by_setting[0]) & set(by_setting[1]), key=str)
    if not shared:
        raise UsageError(
            f"{first} and {second}: no cell of one has a counterpart in the other.",
            f"They must share {', '.join(PAIRED)}{' and the model' if by_model else ''}; to compare two "
            "pretexts of one run, write RUN:pretext=a RUN:pretext=b.",
        )
    groups: dict[tuple[Any, ...], list[tuple[StoredCell, StoredCell]]] = defaultdict(list)
    for key in shared:
        groups[(*key[:4], key[5])].append((by_setting[0][key], by_setting[1][key]))
    rows = [row for key, pairs in groups.items() for row in _rows(key, pairs, metrics)]
    corrected = holm([row.p if row.main else None for row in rows])
    return [_judge(row, p) for row, p in zip(rows, corrected, strict=True)], warnings


def _cells(selection: Selection, warnings: list[str]) -> list[StoredCell]:
    cells, damaged = read_run(selection.run)
    warnings += [f"{selection.run}/{text}" for text in damaged]
    return [
        cell for cell in cells if not cell.result.is_floor and selection.includes(cell.result.cell)
    ]


def _mean_of_all(values: list[float | None]) -> float | None:
    """Average the values; None where one is undefined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def _value(cell: StoredCell, metric: str) -> float | None:
    score = cell.result.metrics.get(metric)
    return None if score is None else score.value


def _model(cell: StoredCell) -> str:
    return " ".join(str(getattr(cell.result.cell, key)) for key in MODEL)


def _check_splits(sides: list[list[StoredCell]], names: tuple[Selection, Selection]) -> None:
    hashes = [{(c.result.cell.dataset, c.result.cell.split_hash) for c in side} for side in sides]
    for name, split in sorted(hashes[0]):
        other = {h for n, h in hashes[1] if n == name}
        if other and split not in other:
            raise DataError(
                f"{name}: {names[0]} was tested on split {split}, {names[1]} on {other.pop()}.",
                "Scores on different splits cannot be compared; run both on one split.",
            )


def _changed_data(sides: list[list[StoredCell]], names: tuple[Selection, Selection]) -> list[str]:
    """Describe the data sets whose content, or reader, differs between the two."""
    contents = [
        {(c.result.cell.dataset, c.result.cell.split_hash): c.result.cell.data for c in side}
        for side in sides
    ]
    return [
        f"{key[0]}: the data changed between {names[0]} ({data[:8]}) and {names[1]} "
        f"({contents[1][key][:8]}); differences may be those of the data"
        for key, data in sorted(contents[0].items())
        if contents[1].get(key, data) != data
    ]


def _by_setting(
    cells: list[StoredCell], by_model: bool, selection: Selection
) -> dict[tuple[Any, ...], StoredCell]:
    by_setting: dict[tuple[Any, ...], StoredCell] = {}
    for cell in cells:
        setting = tuple(getattr(cell.result.cell, key) for key in PAIRED)
        key = (*setting, _model(cell) if by_model else "")
        if key in by_setting:
            raise UsageError(
                f"{selection}: several cells for {setting}.",
                "Select one with RUN:encoder=...,pretext=...",
            )
        by_setting[key] = cell
    return by_setting


def _rows(
    key: tuple[Any, ...], pairs: list[tuple[StoredCell, StoredCell]], requested: Sequence[str]
) -> list[Difference]:
    loaded = [
        tuple(read_predictions(cell.folder / "predictions.npz") for cell in pair) for pair in pairs
    ]
    for a, b in loaded:
        if a["ids"].tolist() != b["ids"].tolist():
            raise DataError(
                f"{key[0]}: the two were tested on different images under the same split hash.",
                "One of the folders was changed; run that bench again.",
            )
    primary = pairs[0][0].result.primary
    with_replicates = [
        name.removeprefix("replicates/")
        for name in loaded[0][0]
        if name.startswith("replicates/") and name in loaded[0][1]
    ]
    task_metrics = pairs[0][0].result.metrics.keys()  # a requested metric may be another task's
    extra = [
        *(with_replicates if "*" in requested else []),
        *(name for name in requested if name in task_metrics),
    ]
    names = list(dict.fromkeys([primary, *extra]))
    return [_row(key, name, name == primary, pairs, loaded) for name in names]


def _row(
    key: tuple[Any, ...], metric: str, main: bool, pairs: list[tuple[StoredCell, StoredCell]],
    loaded: list[tuple[Arrays, ...]],
) -> Difference:  # fmt: skip
    dataset, task, protocol, fraction, model = key
    values = [[_value(pair[side], metric) for pair in pairs] for side in (0, 1)]
    means = [_mean_of_all(side) for side in values]
    replicates = [
        _mean([arrays[side].get(f"replicates/{metric}") for arrays in loaded]) for side in (0, 1)
    ]
    low = high = p = None
    if (
        replicates[0] is not None
        and replicates[1] is not None
        and len(replicates[0]) == len(replicates[1])
    ):
        low, high = percentile_interval(replicates[1] - replicates[0])
        p = two_sided(replicates[1] - replicates[0])
    delta = None if means[0] is None or means[1] is None else means[1] - means[0]
    return Difference(
        dataset, task, protocol, fraction, model, metric, main, len(pairs),
        len(loaded[0][0]["ids"]), means[0], means[1], delta, low, high, p, None,
        _delong(loaded) if metric == "auroc" else None,
        _median(loaded, _mcnemar) if metric in ("auroc", "accuracy") else None,
        _median(loaded, _wilcoxon) if metric in ("dice_pos", "legacy_dice") else None,
        higher_is_better=pairs[0][0].result.metrics[metric].higher_is_better,
    )  # fmt: skip


def _mean(replicates: list[np.ndarray | None]) -> np.ndarray | None:
    defined = [values for values in replicates if values is not None]
    if len(defined) < len(replicates) or len({len(values) for values in defined}) != 1:
        return None
    mean: np.ndarray = np.mean(defined, axis=0)
    return mean


def _single(targets: np.ndarray) -> int | None:
    """Choose the class of an AUROC: the only one, or the second of two exclusive ones."""
    if targets.shape[1] == 1:
        return 0
    return 1 if targets.shape[1] == 2 and np.allclose(targets.sum(1), 1) else None


def _of_shape(arrays: Arrays, axes: int, truth: str, predicted: str) -> bool:
    """Whether both are stored as a test needs them; another package's task may store other things."""
    if not {truth, predicted} <= arrays.keys():
        return False
    return arrays[truth].ndim == axes and arrays[truth].shape == arrays[predicted].shape


def _delong(loaded: list[tuple[Arrays, ...]]) -> float | None:
    """Test the AUROC of one class; a macro mean over several has no DeLong test."""
    if not _of_shape(loaded[0][0], 2, "targets", "scores"):
        return None
    targets = loaded[0][0]["targets"]
    k = _single(targets)
    if k is None:
        return None
    known = np.isfinite(targets[:, k])
    first, second = (
        np.stack([arrays[side]["scores"][known, k] for arrays in loaded]) for side in (0, 1)
    )
    return delong_p(first, second, targets[known, k] > 0.5)


def _median(
    loaded: list[tuple[Arrays, ...]], test: Callable[[Arrays, Arrays], float | None]
) -> float | None:
    values = [value for pair in loaded if (value := test(pair[0], pair[1])) is not None]
    return float(np.median(values)) if values else None


def _mcnemar(first: Arrays, second: Arrays) -> float | None:
    """Test correctness: by the top class of exclusive ones, by the threshold of a single one."""
    if not _of_shape(first, 2, "targets", "scores") or not {"kind", "thresholds"} <= first.keys():
        return None
    targets = first["targets"]
    exclusive = str(first["kind"]) == "multiclass"
    if not exclusive and targets.shape[1] != 1:
        return None
    known = np.isfinite(targets).all(1)

    def correct(arrays: Arrays) -> np.ndarray:
        scores = arrays["scores"][known]
        if exclusive:
            result: np.ndarray = scores.argmax(1) == targets[known].argmax(1)
            return result
        result = (scores[:, 0] >= arrays["thresholds"][0]) == (targets[known, 0] > 0.5)
        return result

    return mcnemar_p(correct(first), correct(second))


def _wilcoxon(first: Arrays, second: Arrays) -> float | None:
    """Test Dice per image, averaged over the classes it contains, then over a patient's images."""
    if not _of_shape(first, 4, "mask", "target"):
        return None

    def dice(arrays: Arrays) -> np.ndarray:
        predicted, target = arrays["mask"], arrays["target"]
        sizes = predicted.sum((2, 3)) + target.sum((2, 3))
        present = target.sum((2, 3)) > 0
        scores = 2.0 * (predicted & target).sum((2, 3)) / np.maximum(sizes, 1)
        result: np.ndarray = np.divide(
            (scores * present).sum(1), present.sum(1), out=np.full(len(scores), np.nan),
            where=present.sum(1) > 0,
        )  # fmt: skip
        return result

    patients, patient_index = np.unique(first["patients"], return_inverse=True)

    def by_patient(values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        count = np.bincount(patient_index[known], minlength=len(patients))
        total = np.bincount(patient_index[known], values[known], minlength=len(patients))
        result: np.ndarray = np.divide(
            total, count, out=np.full(len(count), np.nan), where=count > 0
        )
        return result

    return wilcoxon_p(by_patient(dice(second)), by_patient(dice(first)))


def _judge(row: Difference, p_holm: float | None) -> Difference:
    if row.delta is None:
        return replace(row, p_holm=p_holm)
    p = p_holm if row.main else row.p
    significant = p is not None and p < 0.05
    better = is_better(row.delta, 0.0, row.higher_is_better)
    verdict = ("better" if better else "worse") if significant else "tie"
    if p is None:
        verdict = ""  # without resamples nothing can be said
    return replace(row, p_holm=p_holm, verdict=verdict)


_CONDITION = re.compile(
    r"(?:(?P<dataset>[^:<>]+):)?(?P<task>[^.:<>]+)\.(?P<metric>[^<>]+?)\s*(?P<sign>[<>]|\bworse by\b)\s*"
    r"(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
)


@dataclass(frozen=True)
class Condition:
    """A condition on differences, second minus first.

    `cls.auroc<-0.005` is met where the difference is below a number (`>`: above), `cls.auroc worse
    by 0.005` where it is worse by more, in the metric's own direction.

    Attributes:
        sign: `<`, `>` or `worse by`.
    """

    text: str
    dataset: str | None
    task: str
    metric: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read `[DATASET:]TASK.METRIC(<|>|worse by)NUMBER`.

        Raises:
            UsageError: Not of that form.
        """
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"--fail-on '{text}': not a condition.",
                "Write it like cls.auroc<-0.005, kermany:det.ap50<0 or seg.hd95 worse by 2.",
            )
        return cls(
            text, match["dataset"], match["task"], match["metric"], match["sign"],
            float(match["limit"]),
        )  # fmt: skip

    def met_by(self, rows: Sequence[Difference]) -> list[Difference]:
        """Select the rows for which the condition holds.

        Raises:
            UsageError: When it names a metric or data set that was not compared.
        """
        candidates = [
            row
            for row in rows
            if (row.task, row.metric) == (self.task, self.metric)
            and self.dataset in (None, row.dataset)
        ]
        if not candidates:
            raise UsageError(
                f"--fail-on '{self.text}': no such metric was compared.",
                f"Compared: {', '.join(sorted({f'{r.task}.{r.metric}' for r in rows}))}; add others "
                "with --metric.",
            )
        return [row for row in candidates if row.delta is None or self._holds(row, row.delta)]

    def _holds(self, row: Difference, delta: float) -> bool:
        if self.sign == "worse by":
            return (-delta if row.higher_is_better else delta) > self.limit
        return delta < self.limit if self.sign == "<" else delta > self.limit
