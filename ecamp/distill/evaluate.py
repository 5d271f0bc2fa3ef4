"""How good a distiller is: against labelled sentences, against another one, and where they differ.

What is compared: (sentence, entity, polarity). Spans decide only in which sentence a statement
stands; statements outside the labelled sentences are not judged.

Why: docs/decisions.md#distillers-are-judged-by-sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecamp.api.distiller import POLARITIES, Distilled, Distiller, Statement, strongest_polarity
from ecamp.distill.gold import PlacedSentence
from ecamp.errors import DataError
from ecamp.metrics.stats import Metric, resample_counts

COMMONEST, RESAMPLES = 14, 1000
Key = tuple[int, str, str]  # sentence, entity, polarity


@dataclass(frozen=True)
class Score:
    """Found against wanted.

    Attributes:
        wanted, found, right: Labels, statements, and statements that are labels.
        precision, recall, f1: With a bootstrap over reports; undefined where nothing is counted.
    """

    wanted: int
    found: int
    right: int
    precision: Metric
    recall: Metric
    f1: Metric

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of F1; None where resampling cannot tell: all of it right, or wrong."""
        low, high = self.f1.interval()
        return None if low is None or high is None or low == high else (low, high)

    def as_json(self) -> dict[str, Any]:
        """Numbers, null where undefined."""
        return {
            "wanted": self.wanted, "found": self.found, "right": self.right,
            "precision": self.precision.value, "recall": self.recall.value, "f1": self.f1.value,
            "f1_interval": self.interval and list(self.interval),
        }  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """One distiller on the labelled sentences.

    Attributes:
        all: Micro average over everything.
        commonest: Micro average over the entities that are labelled most.
        by_polarity: Micro averages.
        by_entity: Most labelled first; entities that only the distiller names last.
        by_both: (entity, polarity) -> score.
        errors: Report -> why it has no answer.
        statements: Statements by labelled sentence.
    """

    all: Score
    commonest: Score
    by_polarity: dict[str, Score]
    by_entity: dict[str, Score]
    by_both: dict[tuple[str, str], Score]
    errors: dict[str, str]
    statements: tuple[tuple[Statement, ...], ...]


def commonest(sentences: Sequence[PlacedSentence], count: int = COMMONEST) -> list[str]:
    """The entities that are labelled most; of equals the first by name."""
    total = Counter(label.entity for sentence in sentences for label in sentence.labels)
    return [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:count]]


def evaluate(sentences: Sequence[PlacedSentence], distiller: Distiller) -> Evaluation:
    """Distil the reports of the sentences, whole, and compare.

    Args:
        sentences: Of `gold.place_gold`.
    """
    reports = list({s.report.id: s.report for s in sentences}.values())
    results = {one.id: one for one in distiller.distill(reports)}
    if lost := [report.id for report in reports if report.id not in results]:
        raise DataError(f"The distiller has no result for report '{lost[0]}'.")
    said = tuple(_within(sentence, results[sentence.report.id]) for sentence in sentences)
    wanted = _keys([sentence.labels for sentence in sentences])
    return _compare(
        wanted,
        said,
        [sentence.report.id for sentence in sentences],
        commonest(sentences),
        {one.id: one.error for one in results.values() if one.error},
    )


def _within(sentence: PlacedSentence, result: Distilled) -> tuple[Statement, ...]:
    """Statements that overlap a sentence."""
    return tuple(
        one for one in result.statements if one.start < sentence.end and sentence.start < one.end
    )


def _keys(statements: Sequence[Sequence[Statement]]) -> set[Key]:
    return {(at, s.entity, s.polarity) for at, group in enumerate(statements) for s in group}


def _compare(
    wanted: set[Key],
    said: tuple[tuple[Statement, ...], ...],
    reports: Sequence[str],
    common: Sequence[str],
    errors: dict[str, str],
) -> Evaluation:
    found = _keys(said)
    counts = resample_counts(reports, RESAMPLES)
    ranked = Counter(entity for _, entity, _ in wanted)
    names = sorted({key[1] for key in wanted | found}, key=lambda name: (-ranked[name], name))

    def part(entities: Iterable[str], polarities: Iterable[str] = POLARITIES) -> Score:
        inside, kinds = set(entities), set(polarities)
        kept = [
            {key for key in keys if key[1] in inside and key[2] in kinds}
            for keys in (wanted, found)
        ]
        return score(kept[0], kept[1], counts)

    pairs = sorted({(key[1], key[2]) for key in wanted | found})
    return Evaluation(
        all=part(names),
        commonest=part(common),
        by_polarity={polarity: part(names, [polarity]) for polarity in POLARITIES},
        by_entity={name: part([name]) for name in names},
        by_both={(name, polarity): part([name], [polarity]) for name, polarity in pairs},
        errors=errors,
        statements=said,
    )


def score(wanted: set[Key], found: set[Key], counts: np.ndarray) -> Score:
    """Precision, recall and F1 of two sets.

    Args:
        counts: float (resamples, sentences), how often each sentence stands in each resample, of
            `metrics.stats.resample_counts`.
    """
    right = wanted & found
    each = [_per_sentence(keys, counts.shape[1]) for keys in (wanted, found, right)]
    many_wanted, many_found, many_right = (counts @ one for one in each)
    return Score(
        len(wanted),
        len(found),
        len(right),
        _ratio(len(right), len(found), many_right, many_found, "nothing is found"),
        _ratio(len(right), len(wanted), many_right, many_wanted, "nothing is labelled"),
        _ratio(
            2 * len(right), len(wanted) + len(found), 2 * many_right, many_wanted + many_found,
            "nothing is labelled or found",
        ),
    )  # fmt: skip


def _per_sentence(keys: set[Key], sentences: int) -> np.ndarray:
    return np.bincount([at for at, _, _ in keys], minlength=sentences).astype(np.float64)


def _ratio(part: float, whole: float, parts: np.ndarray, wholes: np.ndarray, reason: str) -> Metric:
    if not whole:
        return Metric.undefined(reason)
    replicates = np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)
    return Metric.of(part / whole, replicates)


# --- two distillers -----------------------------------------------------------------------------


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Metric:
    """Agreement of two raters beyond chance (Cohen, 1960).

    Args:
        first, second: One category an item.
    """
    kinds = sorted({*first, *second})
    if not kinds:
        return Metric.undefined("nothing is rated")
    table = np.zeros((len(kinds), len(kinds)))
    for one, two in zip(first, second, strict=True):
        table[kinds.index(one), kinds.index(two)] += 1
    table /= table.sum()
    chance = float(table.sum(0) @ table.sum(1))
    if chance >= 1:
        return Metric.undefined("both raters know one category only")
    return Metric.of((float(np.trace(table)) - chance) / (1 - chance))


def agreement(first: Evaluation, second: Evaluation) -> dict[str, Metric]:
    """Kappa of two distillers on the labelled sentences, `all` and by entity.

    An item is a sentence with an entity that one of them names anywhere; its category is the
    polarity (the strongest_polarity, where a sentence has several), or `none`.
    """
    told = [[_strongest(group) for group in one.statements] for one in (first, second)]
    names = sorted({name for one in told for group in one for name in group})
    rated = {name: [[group.get(name, "none") for group in one] for one in told] for name in names}
    pooled = [[kind for name in names for kind in rated[name][rater]] for rater in (0, 1)]
    kappas = {"all": cohen_kappa(*pooled)}
    return {**kappas, **{name: cohen_kappa(*rated[name]) for name in names}}


def _strongest(statements: Sequence[Statement]) -> dict[str, str]:
    return strongest_polarity((s.entity, s.polarity) for s in statements)


@dataclass(frozen=True)
class Disagreement:
    """A sentence on which labels and distillers are not all of one mind.

    Attributes:
        said: Who (`gold`, or a distiller's name) -> statements in the sentence.
        differ: (entity, polarity) pairs that not all of them say.
    """

    sentence: PlacedSentence
    said: dict[str, tuple[Statement, ...]]
    differ: frozenset[tuple[str, str]]


def disagreements(
    sentences: Sequence[PlacedSentence], evaluations: Mapping[str, Evaluation]
) -> list[Disagreement]:
    """All sentences where somebody differs, in the order of the gold file."""
    found = []
    for at, sentence in enumerate(sentences):
        said = {"gold": sentence.labels}
        said |= {name: one.statements[at] for name, one in evaluations.items()}
        pairs = [frozenset((s.entity, s.polarity) for s in group) for group in said.values()]
        differ = frozenset[tuple[str, str]]().union(*pairs) - pairs[0].intersection(*pairs)
        if differ:
            found.append(Disagreement(sentence, said, differ))
    return found
