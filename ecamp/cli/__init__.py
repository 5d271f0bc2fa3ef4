"""The command line. Commands are loaded on use, so that `ecamp --help` imports nothing heavy."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from ecamp.cli.logs import log_to_stderr
from ecamp.errors import EcampError, did_you_mean

# name -> (module:attribute, one line of help); the help is here so that listing loads nothing.
COMMANDS = {
    "bench": ("ecamp.cli.bench:bench", "Run encoders x pretexts x data sets x tasks."),
    "pretrain": ("ecamp.cli.pretrain:pretrain", "Pre-train one encoder."),
    "ablate": ("ecamp.cli.ablate:ablate", "Measure what each part of ECAMP contributes."),
    "distill": (
        "ecamp.cli.distill:distill",
        "Distil reports into entity-centred statements; evaluate.",
    ),
    "report": ("ecamp.cli.report:report", "Print the table of a run and write its HTML page."),
    "compare": ("ecamp.cli.compare:compare", "Compare two runs: paired differences, with tests."),
    "rescore": ("ecamp.cli.rescore:rescore", "Compute metrics again from stored predictions."),
    "text": ("ecamp.cli.text:text", "Explain the masking of reports; train tokenizers."),
    "weights": ("ecamp.cli.weights:weights", "Inspect published checkpoints and convert them."),
    "kernels": (
        "ecamp.cli.kernels:kernels",
        "List the kernels that are native here; measure them.",
    ),
    "data": ("ecamp.cli.data:data", "List, describe, convert and audit data sets."),
    "plugins": ("ecamp.cli.plugins:plugins", "List, describe, check and begin plugins."),
    "cache": ("ecamp.cli.cache:cache", "List, delete or verify what is kept between runs."),
    "doctor": ("ecamp.cli.doctor:doctor", "Check this installation."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No command '{args[0]}'. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecamp", prog_name="ecamp")
def cli() -> None:
    """Does this medical vision-language pre-training help, and can the number be trusted?"""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit; a user's mistake never shows a traceback."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """Run the command line and return the exit code (see `ecamp.errors`)."""
    debug = os.environ.get("ECAMP_DEBUG") == "1"
    try:
        with log_to_stderr():
            code = cli.main(args=args, prog_name="ecamp", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except EcampError as error:
        if debug:
            raise
        click.echo(f"ecamp: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2 if isinstance(error, click.UsageError) else 1
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "ecamp: interrupted. The same command resumes; finished cells are kept.", err=True
        )
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        from ecamp.plugin.blame import find_culprit, suspects

        culprit = find_culprit(error)
        if debug or (culprit is None and isinstance(error, SystemExit)):  # as a command ends
            raise
        if culprit is not None:
            text = str(culprit.error(error))
        else:
            text = (
                f"defect: {type(error).__name__}: {error}{suspects()}\n"
                "  This should not happen. ECAMP_DEBUG=1 shows where; please report it."
            )
        click.echo(f"ecamp: {text}", err=True)
        return 1
