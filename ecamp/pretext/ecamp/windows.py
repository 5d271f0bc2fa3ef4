"""The context-guided window of super-resolution (section 3.4 of the paper).

The image is seen as a grid of patches; a window is a square of `side` x `side` of them and is named
by its first row and first column. All coordinates are those of the crop that the encoder sees:
boxes and maps of the whole film (from a file) are moved through the crop and the flip first.
The published code computed windows on the whole film and applied them to a random, maybe mirrored
crop; its own windows were never published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecamp.errors import DataError, MissingError
from ecamp.io.table import read_table
from ecamp.pretext.images import crop_and_flip

CORNERS = ("x0", "y0", "x1", "y1")


def random_windows(
    batch: int, cells: int, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw square windows on a grid of cells.

    Returns:
        First row and first column, int64 (batch,) each, in 0 .. cells - side.
    """
    corner = torch.randint(0, cells - side + 1, (2, batch), generator=generator)
    return corner[0], corner[1]


def best_windows(maps: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Find the window with the largest sum of each map; the first one, row by row, where sums tie.

    Args:
        maps: float (batch, rows, columns), not negative.
        side: Cells of the window, at most rows and columns.

    Returns:
        First row and first column, int64 (batch,) each.
    """
    # Integral image: entry (i, j) holds the sum of all cells above and left of it. In float64, so
    # that equal windows of a flat map have equal sums.
    total = F.pad(maps.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    sums = (
        total[:, side:, side:] - total[:, :-side, side:]
        - total[:, side:, :-side] + total[:, :-side, :-side]
    )  # fmt: skip
    columns, flat = sums.shape[2], sums.flatten(1)
    largest = flat >= flat.amax(1, keepdim=True) * (1 - 1e-9)
    best = torch.where(largest, torch.arange(flat.shape[1]), flat.shape[1]).amin(1)
    return best // columns, best % columns


def move_boxes(boxes: Tensor, crop: Tensor, flip: Tensor) -> Tensor:
    """Turn boxes of the whole film into boxes of its crop.

    Args:
        boxes: float (batch, 4) x0, y0, x1, y1 in 0..1 of the film.
        crop: float (batch, 4) x0, y0, x1, y1 in 0..1 of the film.
        flip: bool (batch,) whether the crop was mirrored.

    Returns:
        float (batch, 4) in 0..1 of the crop, clipped at its edges; empty (x0 == x1) where outside.
    """
    low, size = crop[:, :2].repeat(1, 2), (crop[:, 2:] - crop[:, :2]).repeat(1, 2)
    moved = ((boxes - low) / size).clamp(0, 1)
    mirrored = torch.stack([1 - moved[:, 2], moved[:, 1], 1 - moved[:, 0], moved[:, 3]], 1)
    return torch.where(flip[:, None], mirrored, moved)


def box_maps(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Compute how much of each grid cell a box covers: (batch, 4) in 0..1 -> (batch, rows, columns)."""

    def cover(low: Tensor, high: Tensor, cells: int) -> Tensor:
        edges = torch.arange(cells + 1, dtype=boxes.dtype) / cells
        length = torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])
        return length.clamp(min=0) * cells

    y = cover(boxes[:, 1], boxes[:, 3], rows)
    x = cover(boxes[:, 0], boxes[:, 2], columns)
    return y[:, :, None] * x[:, None, :]


class WindowFile:
    """Windows from a user's file, one box or one map of the whole film per image.

    Two forms: a CSV with the columns `id,x0,y0,x1,y1` (0..1 of the film), or an .npz with one
    non-negative map (rows, columns) per image, named by its id.

    Args:
        path: The file.
        ids: Names of the images, in the order of the pre-training data.

    Raises:
        MissingError, DataError: Name the file, and the row or array.
    """

    def __init__(self, path: Path, ids: tuple[str, ...]) -> None:
        if not path.exists():
            raise MissingError(f"{path}: no such window file.", "Check window_file.")
        self.boxes: dict[int, Tensor] = {}
        self.maps: dict[int, Tensor] = {}
        index_by_id = {name: i for i, name in enumerate(ids)}
        if path.suffix == ".npz":
            self._read_maps(path, index_by_id)
        else:
            self._read_boxes(path, index_by_id)
        if not self.boxes and not self.maps:
            raise DataError(
                f"{path}: names none of the {len(ids)} pre-training images.",
                f"Its ids must be those of the data set, such as '{ids[0] if ids else ''}'.",
            )

    def _read_boxes(self, path: Path, index_by_id: dict[str, int]) -> None:
        for row in read_table(path, ("id", *CORNERS)):
            location = f"{path} line {row.line}"
            try:
                x0, y0, x1, y1 = values = [float(row.values[name]) for name in CORNERS]
            except ValueError as error:
                raise DataError(
                    f"{location}: not a window: {error}.", "Columns: id,x0,y0,x1,y1 in 0..1."
                ) from error
            if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
                raise DataError(
                    f"{location}: box {values} is empty or leaves 0..1.",
                    "x0 < x1 and y0 < y1 are fractions of the film.",
                )
            if row.values["id"] in index_by_id:
                self.boxes[index_by_id[row.values["id"]]] = torch.tensor(values)

    def _read_maps(self, path: Path, index_by_id: dict[str, int]) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                for name in set(file.files) & set(index_by_id):
                    value = file[name]
                    if value.ndim != 2 or not np.isfinite(value).all() or (value < 0).any():
                        raise DataError(f"{path}: map '{name}' is not a non-negative matrix.")
                    self.maps[index_by_id[name]] = torch.from_numpy(value.astype(np.float32))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}.") from error

    def cells(self, index: Tensor, crop: Tensor, flip: Tensor, cells: int) -> Tensor:
        """Compute the map of each crop; zero where the file has none or it lies outside.

        Args:
            index: int64 (batch,). crop: (batch, 4). flip: bool (batch,).

        Returns:
            float (batch, cells, cells).
        """
        out = torch.zeros(len(index), cells, cells)
        for i, sample in enumerate(index.tolist()):
            if sample in self.boxes:
                box = move_boxes(self.boxes[sample][None], crop[i : i + 1], flip[i : i + 1])
                out[i] = box_maps(box, cells, cells)[0]
            elif sample in self.maps:
                film_map = self.maps[sample][None, None]
                out[i] = crop_and_flip(film_map, crop[i : i + 1], flip[i : i + 1], cells)[0, 0]
        return out
