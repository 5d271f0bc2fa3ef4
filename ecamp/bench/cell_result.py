"""The result of one cell, as `result.json` holds it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ecamp.errors import CorruptFileError
from ecamp.metrics.stats import Metric

SCHEMA = 3  # bump when keys of result.json change


@dataclass(frozen=True)
class CellFields:
    """The evaluated combination.

    Attributes:
        dataset: Name of the data set.
        split_id: Name of its splits, `name/version`.
        split_hash: Hash of which image is in which split.
        data: Hash of the data set's content as its reader gives it.
        task: Name of the task.
        encoder, pretext: As the user named them; `-` for a floor.
        weights: Key of the pre-training; `random` without one.
        protocol: How the task uses the encoder; `-` for a floor.
        fraction: Fraction of the training labels, in (0, 1].
        seed: Of the label draw and the head.
        floor: Name of the trivial predictor; None for a cell with an encoder.
    """

    dataset: str
    split_id: str
    split_hash: str
    data: str
    task: str
    encoder: str
    pretext: str
    weights: str
    protocol: str
    fraction: float
    seed: int
    floor: str | None = None


@dataclass(frozen=True)
class Score:
    """One metric on the test split.

    Attributes:
        value: None when undefined.
        low, high: 95 % interval over resampled patients; None without one.
        reason: Why the value is undefined, or what biases it.
        higher_is_better: False for an error, a distance or a rank.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    higher_is_better: bool = True

    @classmethod
    def of(cls, metric: Metric) -> Score:
        """Convert a metric: null and a reason, never NaN."""
        low, high = metric.interval()
        return cls(metric.value, low, high, metric.reason or None, metric.higher_is_better)


@dataclass(frozen=True)
class CellResult:
    """One finished cell.

    Attributes:
        id: The cell's key.
        kind: `cell`, or `floor` for a trivial predictor.
        counts: Images per split, test patients, images left out.
        primary: Name of the task's main metric.
        metrics: Scores by name.
        selected: Settings chosen on validation.
        warnings: Caveats for a reader of the number.
        plugins: Origin (distribution, version, code) of data set, task, encoder and pretext.
    """

    id: str
    kind: str
    cell: CellFields
    counts: dict[str, int]
    primary: str
    metrics: dict[str, Score]
    selected: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    plugins: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def is_floor(self) -> bool:
        """Whether a trivial predictor was evaluated."""
        return self.kind == "floor"

    @property
    def score(self) -> Score:
        """The main metric."""
        return self.metrics[self.primary]

    def as_json(self) -> dict[str, Any]:
        """Return the content of `result.json`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CellResult:
        """Read the content of a `result.json`.

        Raises:
            CorruptFileError: Another schema, or a key missing or unknown.
        """
        schema = value.get("schema") if isinstance(value, Mapping) else None
        if schema is None:
            raise CorruptFileError("result.json: not a result of a cell: it has no schema.")
        if schema != SCHEMA:
            raise CorruptFileError(
                f"result.json: written by another version of ecamp (schema {schema}, not {SCHEMA})."
            )
        try:
            known = {f.name: value[f.name] for f in fields(cls)}
            known["cell"] = CellFields(**known["cell"])
            known["metrics"] = {name: Score(**score) for name, score in known["metrics"].items()}
            result = cls(**known)
            number = result.score.value
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptFileError(f"result.json: not a result of a cell: {error!r}.") from error
        if number is not None and not isinstance(number, float | int):
            raise CorruptFileError(f"result.json: {result.primary} is {number!r}, not a number.")
        return result


def scores_of(metrics: Mapping[str, Metric]) -> dict[str, Score]:
    """Convert the metrics of a task, sorted by name."""
    return {name: Score.of(metric) for name, metric in sorted(metrics.items())}
