"""Parsers of label cells: findings joined by bars, and CheXpert's values with an uncertain one."""

from __future__ import annotations

from collections.abc import Sequence

from ecamp.errors import DataError, did_you_mean


def from_findings(
    text: str, classes: Sequence[str], location: str, none: str = "No Finding"
) -> tuple[int, ...]:
    """Convert `Mass|Nodule` to one 0 or 1 per class; a finding must equal a class name.

    Raises:
        DataError: A finding that is not a class; names the row.
    """
    named = {part.strip() for part in text.split("|")}
    unknown = sorted(named - set(classes) - {none})
    if unknown:
        raise DataError(
            f"{location}: unknown finding '{unknown[0]}'.", did_you_mean(unknown[0], classes)
        )
    return tuple(int(name in named) for name in classes)


def from_uncertain(text: str, uncertain: int | None, location: str) -> int | None:
    """Parse a label of CheXpert: 1 present, 0 absent, empty not mentioned (0), -1 uncertain.

    Args:
        uncertain: The value that -1 becomes; None = unknown.

    Raises:
        DataError: Any other value; names the row.
    """
    if text in ("", "0", "0.0"):
        return 0
    if text in ("1", "1.0"):
        return 1
    if text in ("-1", "-1.0"):
        return uncertain
    raise DataError(f"{location}: '{text}' is not a label.", "Labels are 1, 0, -1 or empty.")
