"""Published split lists in the form that the audit reads."""

from __future__ import annotations

from collections.abc import Sequence

from ecamp.audit.splits import Item, SplitList
from ecamp.datasets.published_lists import PublishedList, Row, by_image


def split_lists(lists: Sequence[PublishedList]) -> tuple[list[SplitList], bool]:
    """Convert published lists for the audit: one item per image, one column per class.

    Returns:
        Split lists; whether the labels exclude each other (a single column with values beyond 1).
    """
    single = [
        row.labels[0] for lst in lists for row in lst.rows if row.labels and len(row.labels) == 1
    ]
    classes = max(single, default=0) + 1
    exclusive = classes > 2
    out = []
    for lst in lists:
        items = []
        if lst.form == "rle":  # a row a run: one item an image
            for image, rows in by_image(lst.rows):
                found = int(any(row.rle for row in rows))
                items.append(Item(image, rows[0].patient, (found,), None, _where(lst, rows[0])))
        else:
            for row in lst.rows:
                labels: tuple[int | None, ...] | None = row.labels
                if exclusive and row.labels is not None:
                    labels = tuple(int(k == row.labels[0]) for k in range(classes))
                items.append(Item(row.image, row.patient, labels, row.boxes, _where(lst, row)))
        out.append(SplitList(lst.split, tuple(items), lst.percent))
    return out, exclusive


def _where(lst: PublishedList, row: Row) -> str:
    return f"{lst.path.name} line {row.line}"
