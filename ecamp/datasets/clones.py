"""Find the lists of a published evaluation: in a folder that is named, or in a clone near the images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ecamp.datasets.published_lists import list_files
from ecamp.errors import MissingError
from ecamp.io.folders import describe_folder

CLONES = ("ECAMP", "MRM-pytorch", "MaCo", "BenchX", "BenchmarkTransferLearning", "lovt", "MGCA")


def find_lists(
    given: str, root: Path, places: Sequence[str], what: str,
    splits: Collection[str] = ("val", "test"),
) -> Path:  # fmt: skip
    """The folder that holds lists.

    Args:
        given: A folder of lists, or a clone; `auto` looks for a clone in root, beside it, in
            `$ECAMP_LISTS` and in the working directory, and at last in root itself if `places` has `.`.
        places: Where clones keep them, best first.
        what: Whose lists, for the message.
        splits: Of which there must be a list, for `auto` to take a folder.

    Raises:
        MissingError: Says where was looked for what.
    """
    if given == "auto" and not root.is_dir():
        raise MissingError(f"{root}: no such folder.", "root names the folder of the data set.")
    if given != "auto":
        base = Path(given).expanduser()
        if not base.is_dir():
            raise MissingError(f"{base}: no such folder.", "lists names a folder, or auto.")
        for folder in (base, *(base / place for place in places)):
            if any(True for _ in list_files(folder)):
                return folder
        near = str(base)
    else:
        for folder in _around(root, places):
            # Two of three: ChestX-ray14's own test_list.txt alone is no set of lists.
            if set(splits) <= {split for _, (split, _) in list_files(folder)}:
                return folder
        base, near = root, f"{root}, beside it, in $ECAMP_LISTS or here"
    raise MissingError(
        f"{what}: no lists in {near}; looked for {', '.join(p for p in places if p != '.')}; the folder "
        f"holds {describe_folder(base)}.",
        "Clone the authors' repository and say lists=FOLDER.",
    )


def _around(root: Path, places: Sequence[str]) -> Iterator[Path]:
    named = os.environ.get("ECAMP_LISTS")
    bases = [root, root.parent, *([Path(named)] if named else []), Path()]
    for base in bases:
        for clone in ("", *CLONES):
            yield from (base / clone / place for place in places if place != ".")
    if "." in places:
        yield root
