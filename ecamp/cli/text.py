"""`ecamp text explain | train-tokenizer | lexicon`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ecamp.text.explain import Explanation

STYLES: dict[str, dict[str, Any]] = {
    "entity": {"fg": "blue", "bold": True},
    "descriptor": {"fg": "yellow"},
    "template": {"fg": "magenta"},
    "other": {},
    "unknown": {"fg": "red"},
    "cut": {"dim": True},
}
MARKS = {"entity": "**", "descriptor": "*", "template": "~", "unknown": "?", "cut": "|"}
PAGE_DRAWS = 4


@click.group()
def text() -> None:
    """Explain the masking of reports, train tokenizers, list lexicons."""


@text.command()
@click.argument("report", required=False)
@click.option("--file", "file", type=click.Path(path_type=Path), help="read the report from a file")
@click.option("--lexicon", default="chest", show_default=True, help="chest, fundus, or a YAML file")
@click.option("--tokenizer", type=click.Path(path_type=Path),
              help="tokenizer.json; without it, one is trained on the phantom's reports")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="seed of the draw")  # fmt: skip
@click.option("--step", type=click.IntRange(min=0), default=0, show_default=True,
              help="training step of the draw")  # fmt: skip
@click.option("--max-length", type=click.IntRange(min=2), default=256, show_default=True,
              help="length of the window in tokens")  # fmt: skip
@click.option("-f", "--format", "form", type=click.Choice(["ansi", "json"]), default="ansi",
              help="ansi: for the terminal")  # fmt: skip
@click.option("--color/--no-color", default=None, help="colours; default: only on a terminal")
@click.option("--html", type=click.Path(path_type=Path),
              help=f"also write an HTML page with {PAGE_DRAWS} draws")  # fmt: skip
def explain(
    report: str | None, file: Path | None, lexicon: str, tokenizer: Path | None, seed: int,
    step: int, max_length: int, form: str, color: bool | None, html: Path | None,
) -> None:  # fmt: skip
    """Show which words of REPORT (- for standard input) are masked, and their loss weights."""
    from ecamp.report.explain import render_explanation
    from ecamp.storage.files import write_bytes
    from ecamp.text.explain import explain as explain_report
    from ecamp.text.policy import MaskingPolicy

    words = _read_report(report, file)
    policy = MaskingPolicy(lexicon=lexicon)
    vocabulary = _tokenizer(tokenizer, lexicon, words)
    explanation = explain_report(words, vocabulary, policy, (seed,), step, max_length)
    if form == "json":
        click.echo(json.dumps(_as_json(explanation), indent=2, ensure_ascii=False))
    else:
        for line in _lines(explanation):
            click.echo(line, color=color)
    if html:
        seeds = tuple(range(seed, seed + PAGE_DRAWS))
        page = explain_report(words, vocabulary, policy, seeds, step, max_length)
        name = (
            f"tokenizer {tokenizer.name}" if tokenizer else "tokenizer trained on phantom reports"
        )
        write_bytes(html, render_explanation(page, name).encode())
        click.echo(f"page: {html}", err=True)


def _read_report(report: str | None, file: Path | None) -> str:
    from ecamp.errors import DataError, MissingError, UsageError
    from ecamp.text.reports import decode

    if (report is None) == (file is None):
        raise UsageError(
            "Give one report: as an argument, with --file, or as - for standard input."
        )
    if file is not None:
        if not file.is_file():
            raise MissingError(f"{file}: no such file.")
        report = decode(file.read_bytes(), str(file))
    elif report == "-":
        report = decode(sys.stdin.buffer.read(), "standard input")
    assert report is not None
    if not report.strip():
        raise DataError("The report is empty.")
    if not report.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in report):
        raise DataError("The report is not UTF-8.")  # an argument whose bytes Python could not read
    return report


def _tokenizer(path: Path | None, lexicon: str, words: str) -> Tokenizer:
    """Load the user's tokenizer, or train one on the phantom, the lexicon and this report's letters."""
    from ecamp.datasets.phantom.study import describe_study
    from ecamp.text.lexicon import Lexicon
    from ecamp.text.tokenizer import load_tokenizer, train_tokenizer

    if path:
        return load_tokenizer(path)
    entities = Lexicon.load(lexicon)
    forms = [form for group in entities.entities.values() for form in group]
    reports = [describe_study(0, i).report for i in range(1000)]
    letters = " ".join(sorted(set(words)))
    return train_tokenizer([*reports, *forms, *entities.templates, letters], 3000)


def _lines(explanation: Explanation) -> list[str]:
    """Format the report with its roles, and below each masked word its weight."""
    import shutil

    (draw,) = explanation.draws
    width = max(40, min(100, shutil.get_terminal_size().columns))
    rows: list[tuple[str, str]] = [("", "")]
    used = 0
    for word, masked, weight in zip(explanation.words, draw.masked, draw.weights, strict=True):
        mark = MARKS.get(word.role, "")
        marked = f"{mark}{word.text}{mark}"
        below = f"{weight:.2f}" if masked else ""
        cell = max(len(marked), len(below)) + 1
        if used + cell > width and used:
            rows.append(("", ""))
            used = 0
        styled = click.style(marked, **STYLES[word.role], reverse=masked)
        top, bottom = rows[-1]
        rows[-1] = (top + styled + " " * (cell - len(marked)), bottom + below.ljust(cell))
        used += cell
    lines = [line.rstrip() for row in rows for line in row if line.strip()]
    return [*lines, "", *_legend(explanation)]


def _legend(explanation: Explanation) -> list[str]:
    (draw,) = explanation.draws
    lines = []
    roles = [*STYLES][:4] + [word.role for word in explanation.words]
    for role in dict.fromkeys(roles):
        indices = [i for i, word in enumerate(explanation.words) if word.role == role]
        hidden = [i for i in indices if draw.masked[i]]
        weight = f", weight {draw.weights[hidden[0]]:.2f} per token" if hidden else ""
        mark = MARKS.get(role, "")
        name = click.style(f"{mark}{role}{mark}", **STYLES[role])
        pad = " " * (14 - len(role) - 2 * len(mark))
        lines.append(
            f"{name}{pad} p {explanation.chance(role):<5g} "
            f"{len(hidden)} of {len(indices)} words masked{weight}"
        )
    lines.append(
        f"seed {draw.seed}, step {draw.step}: {draw.tokens_masked} of {explanation.tokens} tokens "
        f"masked, weights sum to {draw.weight_sum:.2f}. The number below a masked word is its weight."
    )
    return lines


def _as_json(explanation: Explanation) -> dict[str, object]:
    (draw,) = explanation.draws
    words = [
        {
            "text": word.text, "start": word.start, "end": word.end, "role": word.role,
            "tokens": word.pieces, "masked": masked, "weight": weight,
        }
        for word, masked, weight in zip(
            explanation.words, draw.masked, draw.weights, strict=True
        )
    ]  # fmt: skip
    return {
        "lexicon": explanation.policy.lexicon,
        "seed": draw.seed,
        "step": draw.step,
        "probabilities": {
            role: explanation.chance(role) for role in ("entity", "descriptor", "template", "other")
        },
        "tokens": explanation.tokens,
        "tokens_masked": draw.tokens_masked,
        "weight_sum": draw.weight_sum,
        "words": words,
    }


@text.command("train-tokenizer")
@click.argument("reports", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True,
              help="tokenizer.json to write")  # fmt: skip
@click.option("--vocab-size", type=click.IntRange(min=64), default=30000, show_default=True,
              help="maximum size of the vocabulary")  # fmt: skip
@click.option("--column", "columns", multiple=True, help="column or JSON key; may be repeated")
@click.option(
    "--lexicon", default="chest", show_default=True, help="lexicon whose coverage is measured"
)
def train_tokenizer_command(
    reports: Path, out: Path, vocab_size: int, columns: tuple[str, ...], lexicon: str
) -> None:
    """Train a WordPiece tokenizer on REPORTS.

    REPORTS: .csv, .tsv, .jsonl, a folder of .txt, or a text file with one report per line. The same
    reports give the same bytes.
    """
    from ecamp.storage.files import write_bytes
    from ecamp.text.coverage import measure_coverage
    from ecamp.text.lexicon import Lexicon
    from ecamp.text.reports import read_reports
    from ecamp.text.tokenizer import train_tokenizer

    words = Lexicon.load(lexicon)
    texts = read_reports(reports, columns)
    tokenizer = train_tokenizer(texts, vocab_size)
    write_bytes(out, tokenizer.to_str(pretty=True).encode())
    count = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    coverage = measure_coverage(words, tokenizer)
    click.echo(f"{len(texts)} reports, {tokenizer.get_vocab_size()} pieces, "
               f"{count / len(texts):.1f} tokens per report: {out}")  # fmt: skip
    lost = coverage.lost_forms
    total = coverage.total
    click.echo(f"lexicon {words.name}: {total - len(lost)} of {total} forms can match")
    if lost:
        click.echo(f"  need [UNK]: {', '.join(lost)}")
    if coverage.lost_entities:
        click.echo(f"  entities without a form: {', '.join(coverage.lost_entities)}")


@text.command()
@click.argument("name")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="also show which forms can match"
)
def lexicon(name: str, tokenizer: Path | None) -> None:
    """List the entities of a lexicon (chest, fundus, or a YAML file) with their forms."""
    from ecamp.text.coverage import TEMPLATES, measure_coverage
    from ecamp.text.lexicon import Lexicon
    from ecamp.text.tokenizer import load_tokenizer

    words = Lexicon.load(name)
    forms = sum(map(len, words.entities.values()))
    click.echo(f"{words.name}, version {words.version}: {len(words.entities)} entities, "
               f"{forms} forms, {len(words.templates)} templates")  # fmt: skip
    coverage = measure_coverage(words, load_tokenizer(tokenizer)) if tokenizer else None
    for entity, group in {**words.entities, TEMPLATES: words.templates}.items():
        names = [f"{form} (never)" if coverage and form in coverage.lost[entity] else form
                 for form in group]  # fmt: skip
        count = f"{len(coverage.usable[entity])}/{len(group)}" if coverage else str(len(group))
        click.echo(f"{entity:20} {count:>6}  {', '.join(names)}")
    if coverage:
        total = coverage.total
        matching = total - len(coverage.lost_forms)
        click.echo(f"{matching} of {total} forms can match; (never): needs [UNK]")
