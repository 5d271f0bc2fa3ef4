"""`python -m tests.golden DIR`: does our published arithmetic give the recorded vectors?

One line a check: verdict, name, error, tolerance. Exit code 0 when all pass, 1 when one fails or
something in the folder is unknown, 4 when there is no such folder.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ecamp.errors import EcampError, MissingError, UsageError, did_you_mean
from tests.golden.check import DAMAGED, EXACT, Check

# File -> the module here whose `checks(folder)` looks at it.
CHECKS = {
    "masking.json": "masking",
    "masking_stats.json": "masking_stats",
    "fusion.safetensors": "fusion",
    "text_branch.safetensors": "text_branch",
    "image_branch.safetensors": "image_branch",
    "fullsize.safetensors": "fullsize",
    "posembed.npz": "posembed",
    "checkpoint_keys.json": "checkpoint_keys",
    "seg_loss.npz": "seg_loss",
    "det_loss.npz": "det_loss",
    "schedules.npz": "schedules",
    "metrics.npz": "metrics",
    "finetune_fullsize.npz": "finetune",
}
SUPPORT = {"README.md", "meta.json", "tolerances.json"}


def file_checks(folder: Path, name: str) -> Iterator[Check]:
    """All checks of one file; whatever goes wrong in them is a failing check, too."""
    if name not in CHECKS:
        yield Check(name, float("nan"), EXACT, "unknown file")
        return
    if not (folder / name).is_file():
        yield Check(name, float("nan"), EXACT, f"missing file. {DAMAGED}")
        return
    try:
        yield from importlib.import_module(f"tests.golden.{CHECKS[name]}").checks(folder)
    except EcampError as error:
        yield Check(name, float("nan"), EXACT, error.message)
    except Exception as error:  # a field that is gone, a shape that does not fit
        if os.environ.get("ECAMP_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Check(name, float("nan"), EXACT, f"damaged or incomplete ({what}). {DAMAGED}")


def folder_checks(folder: Path, only: Sequence[str] = ()) -> Iterator[Check]:
    """Checks of a folder's files, known or not.

    Args:
        only: Files to look at; all where empty.

    Raises:
        MissingError: When there is no such folder.
        UsageError: When a file of `only` is unknown.
    """
    if not folder.is_dir():
        raise MissingError(
            f"{folder}: no such folder of golden vectors.",
            "Name the folder that holds meta.json, such as golden/dev.",
        )
    for name in only:
        if name not in CHECKS:
            raise UsageError(f"--only {name}: unknown file. {did_you_mean(name, CHECKS)}")
    present = {path.name for path in folder.iterdir()} - SUPPORT
    for name in only or (*CHECKS, *sorted(present - set(CHECKS))):
        yield from file_checks(folder, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every check; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description="Compare our published arithmetic with vectors from the published code.",
    )
    parser.add_argument("folder", type=Path, help="folder of golden vectors")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="one file")
    parser.add_argument("--failed", action="store_true", help="print failing checks only")
    options = parser.parse_args(arguments)
    passed = failed = 0
    try:
        for check in folder_checks(options.folder, options.only):
            passed, failed = passed + check.passed, failed + (not check.passed)
            if not (options.failed and check.passed):
                print(check.line(), flush=True)
    except EcampError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
