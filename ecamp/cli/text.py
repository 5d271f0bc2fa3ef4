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
    """Reports: what is masked, tokenizers, lexicons."""


@text.command()
@click.argument("report", required=False)
@click.option("--file", "file", type=click.Path(path_type=Path), help="read the report from a file")
@click.option("--lexicon", default="chest", show_default=True, help="chest, fundus, or a YAML file")
@click.option("--tokenizer", type=click.Path(path_type=Path),
              help="tokenizer.json; without one, learnt from the phantom's reports")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--step", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--max-length", type=click.IntRange(min=2), default=256, show_default=True,
              help="tokens of the window")  # fmt: skip
@click.option("--fidelity", type=click.Choice(["paper"]), default="paper", help="masking rules")
@click.option("-f", "--format", "form", type=click.Choice(["ansi", "json"]), default="ansi")
@click.option("--color/--no-color", default=None, help="default: on a terminal")
@click.option("--html", type=click.Path(path_type=Path),
              help=f"also write a page with {PAGE_DRAWS} draws")  # fmt: skip
def explain(
    report: str | None, file: Path | None, lexicon: str, tokenizer: Path | None, seed: int,
    step: int, max_length: int, fidelity: str, form: str, color: bool | None, html: Path | None,
) -> None:  # fmt: skip
    """Show which words of REPORT (or - for standard input) are masked, and what they weigh."""
    from ecamp.report.explain import render_explanation
    from ecamp.storage.files import write_bytes
    from ecamp.text.explain import explain as explain_report
    from ecamp.text.policy import MaskingPolicy

    words = _read_report(report, file)
    policy = MaskingPolicy(lexicon=lexicon)
    learnt = _tokenizer(tokenizer, lexicon, words)
    told = explain_report(words, learnt, policy, (seed,), step, max_length)
    if form == "json":
        click.echo(json.dumps(_as_json(told, fidelity), indent=2, ensure_ascii=False))
    else:
        for line in _lines(told):
            click.echo(line, color=color)
    if html:
        seeds = tuple(range(seed, seed + PAGE_DRAWS))
        page = explain_report(words, learnt, policy, seeds, step, max_length)
        name = (
            f"tokenizer {tokenizer.name}" if tokenizer else "tokenizer learnt from phantom reports"
        )
        write_bytes(html, render_explanation(page, name).encode())
        click.echo(f"page: {html}", err=True)


def _read_report(report: str | None, file: Path | None) -> str:
    from ecamp.errors import DataError, MissingError, UsageError
    from ecamp.text.reports import decode

    if (report is None) == (file is None):
        raise UsageError("Give one report: as an argument, with --file, or - for standard input.")
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
    """The user's, or one that knows the lexicon, the phantom's reports and every letter of this."""
    from ecamp.datasets.phantom.study import describe_study
    from ecamp.text.lexicon import load_lexicon
    from ecamp.text.tokenizer import load_tokenizer, train_tokenizer

    if path:
        return load_tokenizer(path)
    known = load_lexicon(lexicon)
    forms = [form for group in known.entities.values() for form in group]
    reports = [describe_study(0, i).report for i in range(1000)]
    letters = " ".join(sorted(set(words)))
    return train_tokenizer([*reports, *forms, *known.templates, letters], 3000)


def _lines(told: Explanation) -> list[str]:
    """The report with its roles; below each masked word its weight, below the others nothing."""
    import shutil

    (draw,) = told.draws
    width = max(40, min(100, shutil.get_terminal_size().columns))
    rows: list[tuple[str, str]] = [("", "")]
    used = 0
    for word, masked, weight in zip(told.words, draw.masked, draw.weights, strict=True):
        mark = MARKS.get(word.role, "")
        shown = f"{mark}{word.text}{mark}"
        below = f"{weight:.2f}" if masked else ""
        cell = max(len(shown), len(below)) + 1
        if used + cell > width and used:
            rows.append(("", ""))
            used = 0
        styled = click.style(shown, **STYLES[word.role], reverse=masked)
        top, bottom = rows[-1]
        rows[-1] = (top + styled + " " * (cell - len(shown)), bottom + below.ljust(cell))
        used += cell
    lines = [line.rstrip() for row in rows for line in row if line.strip()]
    return [*lines, "", *_legend(told)]


def _legend(told: Explanation) -> list[str]:
    (draw,) = told.draws
    lines = []
    shown = [*STYLES][:4] + [word.role for word in told.words]
    for role in dict.fromkeys(shown):
        at = [i for i, word in enumerate(told.words) if word.role == role]
        hidden = [i for i in at if draw.masked[i]]
        weight = f", weight {draw.weights[hidden[0]]:.2f} a token" if hidden else ""
        mark = MARKS.get(role, "")
        name = click.style(f"{mark}{role}{mark}", **STYLES[role])
        pad = " " * (14 - len(role) - 2 * len(mark))
        lines.append(
            f"{name}{pad} p {told.chance(role):<5g} {len(hidden)} of {len(at)} words masked{weight}"
        )
    lines.append(
        f"seed {draw.seed}, step {draw.step}: {draw.tokens_masked} of {told.tokens} tokens masked, "
        f"weights sum to {draw.weight_sum:.2f}. A number stands below each masked word: its weight."
    )
    return lines


def _as_json(told: Explanation, fidelity: str) -> dict[str, object]:
    (draw,) = told.draws
    words = [
        {
            "text": word.text, "start": word.start, "end": word.end, "role": word.role,
            "tokens": word.pieces, "masked": masked, "weight": weight,
        }
        for word, masked, weight in zip(told.words, draw.masked, draw.weights, strict=True)
    ]  # fmt: skip
    return {
        "fidelity": fidelity,
        "lexicon": told.policy.lexicon,
        "seed": draw.seed,
        "step": draw.step,
        "probabilities": {
            role: told.chance(role) for role in ("entity", "descriptor", "template", "other")
        },
        "tokens": told.tokens,
        "tokens_masked": draw.tokens_masked,
        "weight_sum": draw.weight_sum,
        "words": words,
    }


@text.command("train-tokenizer")
@click.argument("reports", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="tokenizer.json")
@click.option("--vocab-size", type=click.IntRange(min=64), default=30000, show_default=True,
              help="upper bound")  # fmt: skip
@click.option("--column", "columns", multiple=True, help="column or JSON key; may be repeated")
@click.option("--lexicon", default="chest", show_default=True, help="to measure its coverage")
def train_tokenizer_command(
    reports: Path, out: Path, vocab_size: int, columns: tuple[str, ...], lexicon: str
) -> None:
    """Learn a WordPiece vocabulary from REPORTS: .csv, .tsv, .jsonl, a folder of .txt, or text with
    one report a line. The same reports give the same bytes.
    """
    from ecamp.storage.files import write_bytes
    from ecamp.text.coverage import measure_coverage
    from ecamp.text.lexicon import load_lexicon
    from ecamp.text.reports import read_reports
    from ecamp.text.tokenizer import train_tokenizer

    words = load_lexicon(lexicon)
    texts = read_reports(reports, columns)
    tokenizer = train_tokenizer(texts, vocab_size)
    write_bytes(out, tokenizer.to_str(pretty=True).encode())
    count = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    found = measure_coverage(words, tokenizer)
    click.echo(f"{len(texts)} reports, {tokenizer.get_vocab_size()} pieces, "
               f"{count / len(texts):.1f} tokens a report: {out}")  # fmt: skip
    lost = found.lost_forms
    click.echo(f"lexicon {words.name}: {found.total - len(lost)} of {found.total} forms can match")
    if lost:
        click.echo(f"  need [UNK]: {', '.join(lost)}")
    if found.lost_entities:
        click.echo(f"  without any form: {', '.join(found.lost_entities)}")


@text.command()
@click.argument("name")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="say which forms can match")
def lexicon(name: str, tokenizer: Path | None) -> None:
    """List the entities of a lexicon (chest, fundus, or a YAML file) with their forms."""
    from ecamp.text.coverage import TEMPLATES, measure_coverage
    from ecamp.text.lexicon import load_lexicon
    from ecamp.text.tokenizer import load_tokenizer

    words = load_lexicon(name)
    forms = sum(map(len, words.entities.values()))
    click.echo(f"{words.name}, version {words.version}: {len(words.entities)} entities, "
               f"{forms} forms, {len(words.templates)} templates")  # fmt: skip
    found = measure_coverage(words, load_tokenizer(tokenizer)) if tokenizer else None
    for entity, group in {**words.entities, TEMPLATES: words.templates}.items():
        shown = [f"{form} (never)" if found and form in found.lost[entity] else form
                 for form in group]  # fmt: skip
        part = f"{len(found.usable[entity])}/{len(group)}" if found else str(len(group))
        click.echo(f"{entity:20} {part:>6}  {', '.join(shown)}")
    if found:
        lost = len(found.lost_forms)
        click.echo(f"{found.total - lost} of {found.total} forms can match; (never): needs [UNK]")
