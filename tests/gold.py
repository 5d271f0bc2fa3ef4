"""Gold files: text that users see, stored, so that every change of it is seen in review."""

from __future__ import annotations

import os
from pathlib import Path


def check_gold(file: Path, text: str) -> None:
    """Compare a text with its gold file; `ECAMP_WRITE_GOLD=1` writes the file instead."""
    if os.environ.get("ECAMP_WRITE_GOLD") == "1":
        file.write_text(text)
    stored = file.read_text() if file.exists() else ""
    assert text == stored, (
        f"{file.name} differs; if it should: ECAMP_WRITE_GOLD=1, and look at git diff"
    )
