"""Reports the results of `ecamp distill eval`: as JSON, as a table, and as an HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecamp.api.distiller import Statement
    from ecamp.distill.evaluate import Disagreement, Evaluation, Score
    from ecamp.distill.weak_labels import WeakLabelRecall
    from ecamp.metrics.stats import Metric

FREQUENT = 14  # kinds of disagreement that the page counts


@dataclass(frozen=True)
class DistillReport:
    """Results of an evaluation.

    Attributes:
        gold: Name of the gold file.
        reports: Name of the file of reports.
        sentences: Number of labelled sentences.
        labels: Number of their labels.
        commonest: The most frequently labelled entities.
        evaluations: Name of the distiller -> its scores.
        disagreements: Sentences with a difference, in the order of the gold file.
        kappa: Agreement of two distillers, `all` and by entity; empty for one.
        weak: Name of the distiller -> recall of an indexer's terms; empty if not requested.
    """

    gold: str
    reports: str
    sentences: int
    labels: int
    commonest: Sequence[str]
    evaluations: Mapping[str, Evaluation]
    disagreements: Sequence[Disagreement]
    kappa: Mapping[str, Metric] = field(default_factory=dict)
    weak: Mapping[str, Mapping[str, WeakLabelRecall]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, null where a number is undefined."""
        return {
            "gold": self.gold,
            "reports": self.reports,
            "sentences": self.sentences,
            "labels": self.labels,
            "commonest": list(self.commonest),
            "distillers": {name: _as_json(scores) for name, scores in self.evaluations.items()},
            "kappa": {name: kappa.value for name, kappa in self.kappa.items()},
            "weak": {
                name: {
                    entity: {"reports": recall.reports, "agreeing": recall.agreeing}
                    for entity, recall in recalls.items()
                }
                for name, recalls in self.weak.items()
            },
            "disagreements": [
                {
                    "id": case.sentence.report.id,
                    "start": case.sentence.start,
                    "end": case.sentence.end,
                    "said": {
                        source: sorted({f"{s.entity} {s.polarity}" for s in statements})
                        for source, statements in case.statements.items()
                    },
                }
                for case in self.disagreements
            ],
        }

    def as_lines(self) -> list[str]:
        """Format a table for the terminal."""
        lines = [
            f"{self.gold}: {self.sentences} sentences, {self.labels} labels; "
            f"{len(self.disagreements)} sentences with a difference"
        ]
        for name, scores in self.evaluations.items():
            lines += ["", f"{name:24} {'labels':>7} {'found':>7} {'precision':>9} {'recall':>7} "
                          f"{'F1':>7}  95 % interval"]  # fmt: skip
            lines += [_line(label, score) for label, score in _rows(scores, self.commonest)]
            if scores.errors:
                lines.append(f"{len(scores.errors)} reports without an answer")
        if self.kappa:
            first, second = list(self.evaluations)[:2]
            parts = [f"{n} {_number(self.kappa[n])}" for n in self.commonest if n in self.kappa]
            lines += ["", f"kappa of {first} and {second}: {_number(self.kappa['all'])} "
                          f"({', '.join(parts)})"]  # fmt: skip
        if self.weak:
            lines += ["", f"{'reports with an indexed term':24}   {', '.join(self.weak)}"]
            for entity, indexed in next(iter(self.weak.values())).items():
                fractions = "  ".join(
                    f"{recalls[entity].fraction:.3f}" for recalls in self.weak.values()
                )
                lines.append(f"{entity:24} {indexed.reports:>11}   {fractions}")
        return lines


def _as_json(scores: Evaluation) -> dict[str, Any]:
    return {
        "all": scores.all.as_json(),
        "commonest": scores.commonest.as_json(),
        "by_polarity": {name: score.as_json() for name, score in scores.by_polarity.items()},
        "by_entity": {name: score.as_json() for name, score in scores.by_entity.items()},
        "by_both": {f"{e} {p}": score.as_json() for (e, p), score in scores.by_pair.items()},
        "errors": scores.errors,
    }


def _rows(scores: Evaluation, commonest: Sequence[str]) -> list[tuple[str, Score]]:
    rest = [
        (f"  {name}", score) for name, score in scores.by_entity.items() if name not in commonest
    ]
    return [
        ("all", scores.all),
        (f"{len(commonest)} commonest entities", scores.commonest),
        *scores.by_polarity.items(),
        *((f"  {name}", scores.by_entity[name]) for name in commonest),
        *rest,
    ]


def _line(label: str, score: Score) -> str:
    return (
        f"{label:24} {score.labels:>7} {score.statements:>7} {_number(score.precision):>9} "
        f"{_number(score.recall):>7} {_number(score.f1):>7}  {_interval(score)}"
    ).rstrip()


def _interval(score: Score) -> str:
    return "{:.3f} to {:.3f}".format(*score.interval) if score.interval else ""


def _number(metric: Metric) -> str:
    return "-" if metric.value is None else f"{metric.value:.3f}"


# --- the page -----------------------------------------------------------------------------------


def render_disagreements(report: DistillReport) -> str:
    """Render the page as HTML; it has no script and loads nothing. It contains report text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader("ecamp", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("distill.html.j2")  # fmt: skip
    return template.render(
        report=report,
        scores={name: _scores(scores, report) for name, scores in report.evaluations.items()},
        entities=[_entity(name, report) for name in report.commonest],
        kappa=_number(report.kappa["all"]) if report.kappa else "",
        frequent=_frequent(report),
        cards=[_card(case) for case in report.disagreements],
    )


def _scores(scores: Evaluation, report: DistillReport) -> list[dict[str, Any]]:
    rows = _rows(scores, report.commonest)[:5]
    return [{"label": label, **_formatted(score)} for label, score in rows]


def _formatted(score: Score) -> dict[str, Any]:
    return {
        "labels": score.labels,
        "found": score.statements,
        "precision": _number(score.precision),
        "recall": _number(score.recall),
        "f1": _number(score.f1),
        "width": round(100 * (score.f1.value or 0)),
        "interval": _interval(score),
    }


def _entity(name: str, report: DistillReport) -> dict[str, Any]:
    scores = [_formatted(evaluation.by_entity[name]) for evaluation in report.evaluations.values()]
    return {"name": name, "labels": scores[0]["labels"], "scores": scores}


def _frequent(report: DistillReport) -> list[dict[str, Any]]:
    """Count the pairs that are missed, or stated without a label; most sentences first."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for case in report.disagreements:
        labelled = {(s.entity, s.polarity) for s in case.statements["gold"]}
        for name in report.evaluations:
            stated = {(s.entity, s.polarity) for s in case.statements[name]}
            kinds = {"missed": labelled - stated, "not labelled": stated - labelled}
            for kind, pairs in kinds.items():
                for pair in pairs:
                    counts.setdefault((" ".join(pair), kind), Counter())[name] += 1
    ranked = sorted(counts.items(), key=lambda item: (-max(item[1].values()), item[0]))
    return [
        {"pair": pair, "kind": kind, "counts": [count[name] for name in report.evaluations]}
        for (pair, kind), count in ranked[:FREQUENT]
    ]


def _card(case: Disagreement) -> dict[str, Any]:
    return {
        "id": case.sentence.report.id,
        "row": case.sentence.report.row,
        "section": _section(case),
        "lines": [
            {
                "source": source,
                "parts": _parts(case, statements),
                "chips": [
                    {
                        "words": f"{entity} {polarity}",
                        "polarity": polarity,
                        "differs": (entity, polarity) in case.differing,
                    }
                    for entity, polarity in dict.fromkeys(
                        (s.entity, s.polarity) for s in statements
                    )
                ],
            }
            for source, statements in case.statements.items()
        ],
    }


def _section(case: Disagreement) -> str:
    names = [
        part.name
        for part in case.sentence.report.sections
        if part.start <= case.sentence.start < part.end
    ]
    return names[0] if names else ""


def _parts(case: Disagreement, statements: Sequence[Statement]) -> list[dict[str, Any]]:
    """Cut the sentence where spans begin and end; each part lists the statements that cover it."""
    start, end = case.sentence.start, case.sentence.end
    spans = [(max(s.start, start), min(s.end, end), s) for s in statements]
    boundaries = sorted({start, end, *(edge for first, last, _ in spans for edge in (first, last))})
    parts = []
    for first, last in pairwise(boundaries):
        covering = [s for low, high, s in spans if low <= first and last <= high]
        differing = [s for s in covering if (s.entity, s.polarity) in case.differing]
        leading = next(iter(differing or covering), None)
        parts.append(
            {
                "text": case.sentence.report.text[first:last],
                "polarity": leading.polarity if leading else "",
                "differs": bool(differing),
                "title": ", ".join(f"{s.entity} {s.polarity}" for s in covering),
            }
        )
    return parts
