"""Labels as tables write them: findings joined by bars, and values with an uncertain one."""

from __future__ import annotations

from collections.abc import Sequence

from ecamp.errors import DataError, did_you_mean


def from_findings(
    text: str, classes: Sequence[str], where: str, none: str = "No Finding"
) -> tuple[int, ...]:
    """`Mass|Nodule` as one 0 or 1 a class; a finding must match a class whole.

    Raises:
        DataError: A word that is no class; names the row.
    """
    found = {part.strip() for part in text.split("|")}
    strange = sorted(found - set(classes) - {none})
    if strange:
        raise DataError(
            f"{where}: '{strange[0]}' is no finding.", did_you_mean(strange[0], classes)
        )
    return tuple(int(name in found) for name in classes)


def from_uncertain(text: str, uncertain: int | None, where: str) -> int | None:
    """A cell of CheXpert: 1 present, 0 absent, empty not mentioned (0), -1 uncertain.

    Args:
        uncertain: What -1 becomes; None = unknown.

    Raises:
        DataError: Any other value; names the row.
    """
    if text in ("", "0", "0.0"):
        return 0
    if text in ("1", "1.0"):
        return 1
    if text in ("-1", "-1.0"):
        return uncertain
    raise DataError(f"{where}: '{text}' is no label.", "Labels are 1, 0, -1 or empty.")
