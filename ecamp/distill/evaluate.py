"""Evaluates distillers on labelled sentences: scores, agreement of two, and their differences.

Triples (sentence, entity, polarity) are compared. Spans only assign statements to sentences;
statements outside the labelled sentences are not scored.
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
    """Precision, recall and F1 of statements against labels.

    The three metrics come with a bootstrap over reports; they are undefined where there is nothing
    to count.

    Attributes:
        labels: Number of labels.
        statements: Number of statements.
        correct: Number of statements that are labels.
        precision: Correct statements of all statements.
        recall: Correct statements of all labels.
        f1: Harmonic mean of both.
    """

    labels: int
    statements: int
    correct: int
    precision: Metric
    recall: Metric
    f1: Metric

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of F1; None where resampling gives none: all correct, or all wrong."""
        low, high = self.f1.interval()
        return None if low is None or high is None or low == high else (low, high)

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers, null where undefined."""
        return {
            "wanted": self.labels, "found": self.statements, "right": self.correct,
            "precision": self.precision.value, "recall": self.recall.value, "f1": self.f1.value,
            "f1_interval": self.interval and list(self.interval),
        }  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Scores of one distiller on the labelled sentences.

    Attributes:
        all: Micro average over everything.
        commonest: Micro average over the most frequently labelled entities.
        by_polarity: Polarity -> micro average.
        by_entity: Entity -> score; most labels first, entities that only the distiller names last.
        by_pair: (entity, polarity) -> score.
        errors: Report id -> reason why it has no answer.
        statements: Statements of each labelled sentence.
    """

    all: Score
    commonest: Score
    by_polarity: dict[str, Score]
    by_entity: dict[str, Score]
    by_pair: dict[tuple[str, str], Score]
    errors: dict[str, str]
    statements: tuple[tuple[Statement, ...], ...]


def commonest(sentences: Sequence[PlacedSentence], count: int = COMMONEST) -> list[str]:
    """List the most frequently labelled entities; ties are broken by name."""
    total = Counter(label.entity for sentence in sentences for label in sentence.labels)
    return [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:count]]


def evaluate(sentences: Sequence[PlacedSentence], distiller: Distiller) -> Evaluation:
    """Distil the complete reports of the sentences and score the result.

    Args:
        sentences: Labelled sentences, see `gold.place_gold`.
        distiller: The distiller.

    Raises:
        DataError: The distiller has no result for a report.
    """
    reports = list({s.report.id: s.report for s in sentences}.values())
    results = {result.id: result for result in distiller.distill(reports)}
    if missing := [report.id for report in reports if report.id not in results]:
        raise DataError(f"The distiller has no result for report '{missing[0]}'.")
    return _compare(
        _keys([sentence.labels for sentence in sentences]),
        tuple(_within(sentence, results[sentence.report.id]) for sentence in sentences),
        [sentence.report.id for sentence in sentences],
        commonest(sentences),
        {result.id: result.error for result in results.values() if result.error},
    )


def _within(sentence: PlacedSentence, result: Distilled) -> tuple[Statement, ...]:
    """Select the statements that overlap a sentence."""
    return tuple(s for s in result.statements if s.start < sentence.end and sentence.start < s.end)


def _keys(statements: Sequence[Sequence[Statement]]) -> set[Key]:
    return {(index, s.entity, s.polarity) for index, group in enumerate(statements) for s in group}


def _compare(
    labels: set[Key],
    statements: tuple[tuple[Statement, ...], ...],
    reports: Sequence[str],
    common: Sequence[str],
    errors: dict[str, str],
) -> Evaluation:
    stated = _keys(statements)
    counts = resample_counts(reports, RESAMPLES)
    label_counts = Counter(entity for _, entity, _ in labels)
    names = sorted(
        {key[1] for key in labels | stated}, key=lambda name: (-label_counts[name], name)
    )

    def part(entities: Iterable[str], polarities: Iterable[str] = POLARITIES) -> Score:
        entity_set, polarity_set = set(entities), set(polarities)
        selected = [
            {key for key in keys if key[1] in entity_set and key[2] in polarity_set}
            for keys in (labels, stated)
        ]
        return score(selected[0], selected[1], counts)

    pairs = sorted({(key[1], key[2]) for key in labels | stated})
    return Evaluation(
        all=part(names),
        commonest=part(common),
        by_polarity={polarity: part(names, [polarity]) for polarity in POLARITIES},
        by_entity={name: part([name]) for name in names},
        by_pair={(name, polarity): part([name], [polarity]) for name, polarity in pairs},
        errors=errors,
        statements=statements,
    )


def score(labels: set[Key], stated: set[Key], counts: np.ndarray) -> Score:
    """Compute precision, recall and F1 of stated triples.

    Args:
        labels: Triples that are labelled.
        stated: Triples that the distiller states.
        counts: float (resamples, sentences), how often each sentence occurs in each resample, see
            `metrics.stats.resample_counts`.
    """
    correct = labels & stated
    per_sentence = [_per_sentence(keys, counts.shape[1]) for keys in (labels, stated, correct)]
    many_labels, many_stated, many_correct = (counts @ totals for totals in per_sentence)
    return Score(
        len(labels),
        len(stated),
        len(correct),
        _ratio(len(correct), len(stated), many_correct, many_stated, "nothing is found"),
        _ratio(len(correct), len(labels), many_correct, many_labels, "nothing is labelled"),
        _ratio(
            2 * len(correct), len(labels) + len(stated), 2 * many_correct,
            many_labels + many_stated, "nothing is labelled or found",
        ),
    )  # fmt: skip


def _per_sentence(keys: set[Key], sentences: int) -> np.ndarray:
    return np.bincount([sentence for sentence, _, _ in keys], minlength=sentences).astype(
        np.float64
    )


def _ratio(part: float, whole: float, parts: np.ndarray, wholes: np.ndarray, reason: str) -> Metric:
    if not whole:
        return Metric.undefined(reason)
    replicates = np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)
    return Metric.of(part / whole, replicates)


# --- two distillers -----------------------------------------------------------------------------


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Metric:
    """Compute the agreement of two raters beyond chance (Cohen, 1960).

    Args:
        first: Category of each item by the first rater.
        second: Category of each item by the second rater.
    """
    categories = sorted({*first, *second})
    if not categories:
        return Metric.undefined("nothing is rated")
    table = np.zeros((len(categories), len(categories)))
    for row, column in zip(first, second, strict=True):
        table[categories.index(row), categories.index(column)] += 1
    table /= table.sum()
    chance = float(table.sum(0) @ table.sum(1))
    if chance >= 1:
        return Metric.undefined("both raters use a single category")
    return Metric.of((float(np.trace(table)) - chance) / (1 - chance))


def agreement(first: Evaluation, second: Evaluation) -> dict[str, Metric]:
    """Compute kappa of two distillers on the labelled sentences, `all` and by entity.

    An item is a sentence with an entity that one of them names anywhere; its category is the
    polarity (the strongest one, where a sentence has several), or `none`.
    """
    raters = [[_strongest(group) for group in rater.statements] for rater in (first, second)]
    names = sorted({name for rater in raters for group in rater for name in group})
    ratings = {
        name: [[group.get(name, "none") for group in rater] for rater in raters] for name in names
    }
    pooled = [[rating for name in names for rating in ratings[name][rater]] for rater in (0, 1)]
    kappas = {"all": cohen_kappa(*pooled)}
    return {**kappas, **{name: cohen_kappa(*ratings[name]) for name in names}}


def _strongest(statements: Sequence[Statement]) -> dict[str, str]:
    return strongest_polarity((s.entity, s.polarity) for s in statements)


@dataclass(frozen=True)
class Disagreement:
    """A sentence on which labels and distillers differ.

    Attributes:
        sentence: The sentence.
        statements: Source (`gold`, or a distiller's name) -> its statements in the sentence.
        differing: (entity, polarity) pairs that not all sources state.
    """

    sentence: PlacedSentence
    statements: dict[str, tuple[Statement, ...]]
    differing: frozenset[tuple[str, str]]


def disagreements(
    sentences: Sequence[PlacedSentence], evaluations: Mapping[str, Evaluation]
) -> list[Disagreement]:
    """List all sentences with a disagreement, in the order of the gold file."""
    result = []
    for index, sentence in enumerate(sentences):
        sources = {"gold": sentence.labels}
        sources |= {name: scores.statements[index] for name, scores in evaluations.items()}
        pairs = [frozenset((s.entity, s.polarity) for s in group) for group in sources.values()]
        differing = frozenset[tuple[str, str]]().union(*pairs) - pairs[0].intersection(*pairs)
        if differing:
            result.append(Disagreement(sentence, sources, differing))
    return result
