"""What `ecamp distill eval` found: as JSON, as a table, and as one page of disagreements."""

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
    """All that an evaluation says.

    Attributes:
        gold, reports: Names of the two files.
        sentences, labels: How many are labelled, and with how many labels.
        commonest: The entities that are labelled most.
        evaluations: By name of the distiller.
        kappa: Of the first two distillers: `all` and by entity; empty for one.
        weak: By name of the distiller; empty where it was not asked for.
        disagreements: In the order of the gold file.
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
        """Plain values; null where a number is undefined."""
        return {
            "gold": self.gold,
            "reports": self.reports,
            "sentences": self.sentences,
            "labels": self.labels,
            "commonest": list(self.commonest),
            "distillers": {name: _as_json(one) for name, one in self.evaluations.items()},
            "kappa": {name: kappa.value for name, kappa in self.kappa.items()},
            "weak": {
                name: {
                    entity: {"reports": one.reports, "agreeing": one.agreeing}
                    for entity, one in found.items()
                }
                for name, found in self.weak.items()
            },
            "disagreements": [
                {
                    "id": one.sentence.report.id,
                    "start": one.sentence.start,
                    "end": one.sentence.end,
                    "said": {
                        who: sorted({f"{s.entity} {s.polarity}" for s in statements})
                        for who, statements in one.said.items()
                    },
                }
                for one in self.disagreements
            ],
        }

    def as_lines(self) -> list[str]:
        """A table for the terminal."""
        lines = [
            f"{self.gold}: {self.sentences} sentences, {self.labels} labels; "
            f"{len(self.disagreements)} sentences with a difference"
        ]
        for name, one in self.evaluations.items():
            lines += ["", f"{name:24} {'labels':>7} {'found':>7} {'precision':>9} {'recall':>7} "
                          f"{'F1':>7}  95 % interval"]  # fmt: skip
            lines += [_line(what, score) for what, score in _rows(one, self.commonest)]
            lines += [f"{len(one.errors)} reports without an answer"] if one.errors else []
        if self.kappa:
            first, second = list(self.evaluations)[:2]
            parts = [f"{n} {_number(self.kappa[n])}" for n in self.commonest if n in self.kappa]
            lines += ["", f"kappa of {first} and {second}: {_number(self.kappa['all'])} "
                          f"({', '.join(parts)})"]  # fmt: skip
        if self.weak:
            lines += ["", f"{'reports that an indexer gave the term':24}   {', '.join(self.weak)}"]
            for entity, indexed in next(iter(self.weak.values())).items():
                shares = "  ".join(f"{found[entity].share:.3f}" for found in self.weak.values())
                lines.append(f"{entity:24} {indexed.reports:>11}   {shares}")
        return lines


def _as_json(one: Evaluation) -> dict[str, Any]:
    return {
        "all": one.all.as_json(),
        "commonest": one.commonest.as_json(),
        "by_polarity": {name: score.as_json() for name, score in one.by_polarity.items()},
        "by_entity": {name: score.as_json() for name, score in one.by_entity.items()},
        "by_both": {f"{e} {p}": score.as_json() for (e, p), score in one.by_both.items()},
        "errors": one.errors,
    }


def _rows(one: Evaluation, commonest: Sequence[str]) -> list[tuple[str, Score]]:
    rest = [(f"  {name}", score) for name, score in one.by_entity.items() if name not in commonest]
    return [
        ("all", one.all),
        (f"{len(commonest)} commonest entities", one.commonest),
        *one.by_polarity.items(),
        *((f"  {name}", one.by_entity[name]) for name in commonest),
        *rest,
    ]


def _line(what: str, score: Score) -> str:
    return (
        f"{what:24} {score.wanted:>7} {score.found:>7} {_number(score.precision):>9} "
        f"{_number(score.recall):>7} {_number(score.f1):>7}  {_interval(score)}"
    ).rstrip()


def _interval(score: Score) -> str:
    return "{:.3f} to {:.3f}".format(*score.interval) if score.interval else ""


def _number(metric: Metric) -> str:
    return "-" if metric.value is None else f"{metric.value:.3f}"


# --- the page -----------------------------------------------------------------------------------


def render_disagreements(told: DistillReport) -> str:
    """The page as HTML text; no script, nothing loaded from elsewhere. It holds report text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader("ecamp", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("distill.html.j2")  # fmt: skip
    return template.render(
        told=told,
        scores={name: _scores(one, told) for name, one in told.evaluations.items()},
        entities=[_entity(name, told) for name in told.commonest],
        kappa=_number(told.kappa["all"]) if told.kappa else "",
        frequent=_frequent(told),
        cards=[_card(one) for one in told.disagreements],
    )


def _scores(one: Evaluation, told: DistillReport) -> list[dict[str, Any]]:
    rows = _rows(one, told.commonest)[:5]
    return [{"what": what, **_shown(score)} for what, score in rows]


def _shown(score: Score) -> dict[str, Any]:
    return {
        "labels": score.wanted,
        "found": score.found,
        "precision": _number(score.precision),
        "recall": _number(score.recall),
        "f1": _number(score.f1),
        "width": round(100 * (score.f1.value or 0)),
        "interval": _interval(score),
    }


def _entity(name: str, told: DistillReport) -> dict[str, Any]:
    found = [_shown(one.by_entity[name]) for one in told.evaluations.values()]
    return {"name": name, "labels": found[0]["labels"], "scores": found}


def _frequent(told: DistillReport) -> list[dict[str, Any]]:
    """Entities with a polarity that are missed, or said without a label; most sentences first."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for one in told.disagreements:
        gold = {(s.entity, s.polarity) for s in one.said["gold"]}
        for who in told.evaluations:
            said = {(s.entity, s.polarity) for s in one.said[who]}
            for how, pairs in (("missed", gold - said), ("not labelled", said - gold)):
                for pair in pairs:
                    counted.setdefault((" ".join(pair), how), Counter())[who] += 1
    ranked = sorted(counted.items(), key=lambda item: (-max(item[1].values()), item[0]))
    return [
        {"what": what, "how": how, "counts": [count[who] for who in told.evaluations]}
        for (what, how), count in ranked[:FREQUENT]
    ]


def _card(one: Disagreement) -> dict[str, Any]:
    return {
        "id": one.sentence.report.id,
        "row": one.sentence.report.row,
        "section": _section(one),
        "lines": [
            {
                "who": who,
                "parts": _parts(one, statements),
                "chips": [
                    {
                        "words": f"{entity} {polarity}",
                        "polarity": polarity,
                        "differs": (entity, polarity) in one.differ,
                    }
                    for entity, polarity in dict.fromkeys(
                        (s.entity, s.polarity) for s in statements
                    )
                ],
            }
            for who, statements in one.said.items()
        ],
    }


def _section(one: Disagreement) -> str:
    inside = [
        part.name
        for part in one.sentence.report.sections
        if part.start <= one.sentence.start < part.end
    ]
    return inside[0] if inside else ""


def _parts(one: Disagreement, statements: Sequence[Statement]) -> list[dict[str, Any]]:
    """The sentence cut where marks begin and end; each part with the statements that cover it."""
    start, end = one.sentence.start, one.sentence.end
    inside = [(max(s.start, start), min(s.end, end), s) for s in statements]
    cuts = sorted({start, end, *(at for first, last, _ in inside for at in (first, last))})
    parts = []
    for first, last in pairwise(cuts):
        over = [s for a, b, s in inside if a <= first and last <= b]
        differing = [s for s in over if (s.entity, s.polarity) in one.differ]
        chief = next(iter(differing or over), None)
        parts.append(
            {
                "text": one.sentence.report.text[first:last],
                "polarity": chief.polarity if chief else "",
                "differs": bool(differing),
                "title": ", ".join(f"{s.entity} {s.polarity}" for s in over),
            }
        )
    return parts
