"""Conversion of published split lists for the audit."""

from __future__ import annotations

from collections.abc import Sequence

from ecamp.audit.splits import AuditItem, SplitList
from ecamp.datasets.published_lists import ListRow, PublishedList, group_by_image


def split_lists(lists: Sequence[PublishedList]) -> tuple[list[SplitList], bool]:
    """Convert published lists: one item per image, one column per class.

    Returns:
        Split lists; whether the classes are exclusive (a single column with values above 1).
    """
    single = [
        row.labels[0] for lst in lists for row in lst.rows if row.labels and len(row.labels) == 1
    ]
    classes = max(single, default=0) + 1
    exclusive = classes > 2
    converted = []
    for lst in lists:
        items = []
        if lst.form == "rle":  # one row per run, but one item per image
            for image, rows in group_by_image(lst.rows):
                labels = (int(any(row.rle for row in rows)),)
                items.append(
                    AuditItem(image, rows[0].patient, labels, None, _location(lst, rows[0]))
                )
        else:
            for row in lst.rows:
                one_hot: tuple[int | None, ...] | None = row.labels
                if exclusive and row.labels is not None:
                    one_hot = tuple(int(k == row.labels[0]) for k in range(classes))
                items.append(
                    AuditItem(row.image, row.patient, one_hot, row.boxes, _location(lst, row))
                )
        converted.append(SplitList(lst.split, tuple(items), lst.percent))
    return converted, exclusive


def _location(lst: PublishedList, row: ListRow) -> str:
    return f"{lst.path.name} line {row.line}"
