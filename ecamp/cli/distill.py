"""`ecamp distill REPORTS -o FILE` and `ecamp distill eval`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ecamp.api.distiller import Report
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.distill.run import Tally
    from ecamp.errors import DataError
    from ecamp.report.distill import DistillReport

SKIPPED_ROWS_SHOWN = 5
GROUP = "ecamp.distillers"


class DefaultGroup(click.Group):
    """Group that runs `run` unless its first argument is the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultGroup, options_metavar="", subcommand_metavar="REPORTS -o FILE | COMMAND")
def distill() -> None:
    """Distil reports into entity-centred statements: present, possible, absent.

    `ecamp distill REPORTS -o FILE` is short for `ecamp distill run REPORTS -o FILE`.
    """


@distill.command()
@click.argument("reports")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True,
              help="file to write: .jsonl, .csv or .parquet")  # fmt: skip
@click.option("--with", "name", default="rules", show_default=True,
              help="distiller: rules, llm?endpoint=URL, consensus?first=A&second=B, ...")  # fmt: skip
@click.option("--with-option", "pairs", multiple=True, metavar="KEY=VALUE",
              help="option of the distiller; needed for values that contain an &")  # fmt: skip
@click.option("--column", "columns", multiple=True, help="column or JSON key; may be repeated")
@click.option("--id-column", default="", help="column or JSON key with the report's id")
@click.option("--on-bad-row", type=click.Choice(["stop", "skip"]), default="stop",
              show_default=True, help="action for rows that cannot be read")  # fmt: skip
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def run(
    reports: str, out: Path, name: str, pairs: tuple[str, ...], columns: tuple[str, ...],
    id_column: str, on_bad_row: str, form: str,
) -> int:  # fmt: skip
    """Distil REPORTS into a file; the same command resumes an interrupted one.

    REPORTS: .csv, .tsv, .jsonl, FFA-IR's .json, a MIMIC-CXR tree, a folder of .txt, or a data set
    with reports (phantom, folder.yaml).
    """
    from ecamp.cli.logs import LoggedProgress
    from ecamp.distill.run import distiller_identity, write_distilled
    from ecamp.distill.sinks import make_writer
    from ecamp.errors import DataError
    from ecamp.plugin.host import make_plugin

    make_writer(out)  # reports an unknown format before any work
    ref = _reference(name, pairs)
    distiller = make_plugin(GROUP, ref)
    bad_rows = BadRowHandler(on_bad_row)
    stream, source = _open(reports, columns, id_column, bad_rows)
    first = next(stream, None)
    if first is None:
        raise DataError(f"{reports}: no reports.", "Check that this is the right source.")
    run_fields = {
        "distiller": distiller_identity(ref, distiller), "with": str(ref), "input": source,
        "columns": ",".join(columns), "id column": id_column,
    }  # fmt: skip
    began = time.monotonic()
    tally = write_distilled(out, distiller, chain([first], stream), run_fields, LoggedProgress())
    speed = (tally.reports - tally.resumed) / max(time.monotonic() - began, 1e-9)
    _summarise(out, tally, bad_rows, speed, run_fields["distiller"], dict(distiller.counts()), form)
    return 3 if tally.errors else 0


@distill.command("eval")
@click.option("--gold", type=click.Path(path_type=Path), required=True,
              help="file of labelled sentences (JSON lines), see docs/distillation.md")  # fmt: skip
@click.option("--reports", required=True, help="the reports that were labelled")
@click.option("--with", "names", multiple=True, required=True,
              help="distiller; give one, or two to compare")  # fmt: skip
@click.option("--column", "columns", multiple=True, help="column or JSON key; may be repeated")
@click.option("--id-column", default="", help="column or JSON key with the report's id")
@click.option("--weak", is_flag=True, help="also recall of the terms in column Problems (Open-i)")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.option(
    "--html", type=click.Path(path_type=Path), help="also write an HTML page of all differences"
)
def evaluate_command(
    gold: Path, reports: str, names: tuple[str, ...], columns: tuple[str, ...], id_column: str,
    weak: bool, form: str, html: Path | None,
) -> None:  # fmt: skip
    """Evaluate distillers on labelled sentences: precision, recall, F1, and agreement of two."""
    from ecamp.report.distill import render_disagreements
    from ecamp.storage.files import write_bytes

    report = _evaluate(gold, reports, names, columns, id_column, weak)
    if form == "json":
        click.echo(json.dumps(report.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(report.as_lines()))
    if html:
        write_bytes(html, render_disagreements(report).encode())
        click.echo(f"page: {html} (it contains text of the reports)", err=True)


def _evaluate(
    gold: Path, reports: str, names: tuple[str, ...], columns: tuple[str, ...], id_column: str,
    weak: bool,
) -> DistillReport:  # fmt: skip
    from ecamp.distill.evaluate import agreement, commonest, disagreements, evaluate
    from ecamp.distill.gold import place_gold, read_gold
    from ecamp.distill.sources import choose_id_column
    from ecamp.distill.weak_labels import load_mapping, read_terms, weak_recall
    from ecamp.errors import UsageError
    from ecamp.plugin.host import make_plugin
    from ecamp.report.distill import DistillReport

    if len(names) > 2 or len(set(names)) < len(names):
        raise UsageError("Give one distiller, or two that differ: --with NAME --with NAME.")
    distillers = {name: make_plugin(GROUP, _reference(name)) for name in names}
    bad_rows = BadRowHandler("skip")
    sentences = place_gold(read_gold(gold), _open(reports, columns, id_column, bad_rows)[0])
    evaluations = {name: evaluate(sentences, distiller) for name, distiller in distillers.items()}
    weak_recalls = {}
    if weak:
        terms = read_terms(Path(reports), choose_id_column(Path(reports), id_column))
        weak_recalls = {
            name: weak_recall(
                terms, load_mapping(), _open(reports, columns, id_column, bad_rows)[0], distiller
            )
            for name, distiller in distillers.items()
        }
    return DistillReport(
        gold=gold.name,
        reports=Path(reports).name,
        sentences=len(sentences),
        labels=sum(len(sentence.labels) for sentence in sentences),
        commonest=commonest(sentences),
        evaluations=evaluations,
        disagreements=disagreements(sentences, evaluations),
        kappa=agreement(*evaluations.values()) if len(evaluations) == 2 else {},
        weak=weak_recalls,
    )


def _reference(name: str, pairs: tuple[str, ...] = ()) -> PluginRef:
    import yaml

    from ecamp.api.plugin_ref import PluginRef
    from ecamp.errors import UsageError

    ref = PluginRef.parse(name)
    options = dict(ref.options)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--with-option '{pair}' has no value.", "Write KEY=VALUE.")
        options[key] = yaml.safe_load(value)
    return ref.model_copy(update={"options": options})


def _open(
    source: str, columns: tuple[str, ...], id_column: str, bad_rows: BadRowHandler
) -> tuple[Iterator[Report], str]:
    """Open a file, a folder or a data set: its reports, and a hash of its content."""
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.distill.sources import source_hash, stream_reports
    from ecamp.plugin.host import list_plugins

    path = Path(source).expanduser()
    datasets = {entry.name for entry in list_plugins("ecamp.datasets")}
    if path.suffix in (".yaml", ".yml") or (
        not path.exists() and PluginRef.parse(source).name in datasets
    ):
        return _open_dataset(source, columns, id_column)
    stream = stream_reports(path, columns, id_column, bad_rows)  # raises if it is missing
    return stream, source_hash(path)


def _open_dataset(
    name: str, columns: tuple[str, ...], id_column: str
) -> tuple[Iterator[Report], str]:
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.distill.sources import as_report
    from ecamp.errors import UsageError
    from ecamp.plugin.host import make_plugin

    if columns or id_column:
        raise UsageError(
            f"{name} is a data set and takes no --column or --id-column.",
            "Its own options name the columns.",
        )
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(name))
    reports = (
        as_report(record.id, record.report, record.row)
        for record in dataset.records()
        if record.report is not None
    )
    return reports, dataset.fingerprint()


class BadRowHandler:
    """Policy for rows that cannot be read: `stop` at the first, or `skip` and count them."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.count = 0

    def __call__(self, error: DataError) -> None:
        if self.policy == "stop":
            error.hint = " ".join(
                filter(None, [error.hint, "Or skip such rows: --on-bad-row skip."])
            )
            raise error
        self.count += 1
        if self.count <= SKIPPED_ROWS_SHOWN:
            click.echo(f"skipped: {error.message}", err=True)


def _summarise(
    out: Path, tally: Tally, bad_rows: BadRowHandler, speed: float, distiller: str,
    counts: dict[str, int], form: str,
) -> None:  # fmt: skip
    summary: dict[str, Any] = {
        "out": str(out),
        "reports": tally.reports,
        "resumed": tally.resumed,
        "statements": tally.polarities,
        "dropped": tally.dropped,
        "errors": tally.errors,
        "bad_rows": bad_rows.count,
        "reports_per_second": round(speed, 1),
        "distiller": distiller,
        "counts": counts,
    }
    if form == "json":
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    resumed = f", {tally.resumed} of them from an earlier run" if tally.resumed else ""
    click.echo(f"{tally.reports} reports{resumed}: {out}")
    lines = {
        "statements": _counted(tally.polarities), "dropped": _counted(tally.dropped),
        "errors": _counted(tally.errors), "bad rows": bad_rows.count, "counts": _counted(counts),
    }  # fmt: skip
    for name, value in lines.items():
        if value:
            click.echo(f"{name:12} {value}")
    click.echo(f"{'speed':12} {speed:.0f} reports/s")
    click.echo(f"{'distiller':12} {distiller}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
