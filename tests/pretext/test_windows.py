"""The window of super-resolution: chosen right, moved right, rows never taken for columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.api.dataset import DatasetInfo
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import PretextBatch, PretextContext
from ecamp.errors import DataError, EcampError, MissingError
from ecamp.plugin.host import make_plugin
from ecamp.pretext.ecamp.objective import ECAMPObjective
from ecamp.pretext.ecamp.teacher import entity_maps
from ecamp.pretext.ecamp.windows import (
    WindowFile,
    best_windows,
    box_maps,
    move_boxes,
    random_windows,
)
from ecamp.pretext.images import crop_and_flip
from ecamp.train.optim import adamw


def test_random_windows_reach_every_corner_and_stay_inside():
    row, column = random_windows(5000, 8, 3, torch.Generator().manual_seed(0))
    assert row.unique().tolist() == column.unique().tolist() == list(range(6))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_best_window_equals_a_plain_search(rows: int, columns: int, side: int, seed: int):
    side = min(side, rows, columns)
    # Few values, so that ties occur.
    maps = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (4, rows, columns)))
    row, column = best_windows(maps.float(), side)
    for k, cells in enumerate(maps.numpy()):
        places = [(y, x) for y in range(rows - side + 1) for x in range(columns - side + 1)]
        sums = [cells[y : y + side, x : x + side].sum() for y, x in places]
        assert (int(row[k]), int(column[k])) == places[int(np.argmax(sums))]


def test_a_flat_map_has_no_window_that_wins_by_rounding():
    row, column = best_windows(torch.full((3, 14, 14), 1 / 196), 12)
    assert row.tolist() == column.tolist() == [0, 0, 0]


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_box_moves_as_the_image_does(seed: int, mirrored: bool):
    """Oracle: draw the box into an image, crop and flip the image, look where the box went."""
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(0, 0.6, 2)
    box = torch.tensor([[x0, y0, x0 + rng.uniform(0.1, 0.4), y0 + rng.uniform(0.1, 0.4)]]).float()
    cx, cy = rng.uniform(0, 0.5, 2)
    crop = torch.tensor([[cx, cy, cx + 0.5, cy + 0.45]]).float()
    flip = torch.tensor([mirrored])
    size = 400
    grid = (torch.arange(size) + 0.5) / size
    inside = [(grid >= box[0, i]) & (grid < box[0, i + 2]) for i in (0, 1)]
    image = (inside[1][:, None] & inside[0][None]).float()[None, None]
    moved = crop_and_flip(image, crop, flip, size)[0, 0] > 0.5
    ours = move_boxes(box, crop, flip)[0] * size
    if not moved.any():
        assert ours[2] - ours[0] < 3 or ours[3] - ours[1] < 3
        return
    rows, columns = moved.any(1).nonzero(), moved.any(0).nonzero()
    theirs = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert ours.tolist() == pytest.approx([float(v) for v in theirs], abs=3)


def test_a_box_covers_the_cells_that_it_covers():
    maps = box_maps(torch.tensor([[0.25, 0.5, 1.0, 0.625]]), 4, 4)[0]
    assert maps.tolist() == [[0] * 4, [0] * 4, [0, 0.5, 0.5, 0.5], [0] * 4]


def test_entities_are_averaged_and_a_report_without_any_gives_zeros():
    attention = torch.rand(2, 5, 3, 4)
    entities = torch.tensor([[False, True, False, True, False], [False] * 5])
    maps = entity_maps(attention, entities)
    torch.testing.assert_close(maps[0], (attention[0, 1] + attention[0, 3]) / 2)
    assert not maps[1].any()


# --- windows from a file ---------------------------------------------------------------------------


def _batch(
    images: torch.Tensor, step: int = 0, total: int = 0, **changed: torch.Tensor
) -> PretextBatch:
    count = len(images)
    parts = {
        "index": torch.arange(count),
        "crop": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1),
        "flip": torch.zeros(count, dtype=torch.bool),
    }
    parts |= changed
    generator = torch.Generator().manual_seed(step)
    return PretextBatch(
        images, images, parts["index"], parts["crop"], parts["flip"], generator, step, 0, total
    )


def _objective(
    reports: tuple[str, ...],
    encoder: str = "width=32&depth=1&heads=2&image_size=64",
    **options: object,
) -> ECAMPObjective:
    torch.manual_seed(3)
    built = make_plugin("ecamp.encoders", PluginRef.parse(f"vit-micro?{encoder}")).build(1)
    ids = tuple(f"film-{i}" for i in range(len(reports)))
    context = PretextContext(DatasetInfo(name="x", version="1"), reports, 1, ids)
    plugin = make_plugin("ecamp.pretext", PluginRef(name="ecamp", options=options))
    objective = plugin.build(built, context)
    assert isinstance(objective, ECAMPObjective)
    return objective


def test_row_and_column_are_not_swapped(tmp_path: Path):
    """A film that is dark except its upper right corner; the file names that corner; the window is there."""
    file = tmp_path / "windows.csv"
    file.write_text("id,x0,y0,x1,y1\nfilm-0,0.75,0,1,0.25\nfilm-1,0,0.75,0.25,1\n")
    objective = _objective(
        ("a nodule.", "a mass."), window="file", window_file=str(file), window_size=0.25
    )
    images = torch.zeros(2, 1, 64, 64)
    images[0, 0, :16, 48:] = 1  # rows from the top, columns from the left
    images[1, 0, 48:, :16] = 1
    batch = _batch(images)
    row, column, side = objective._window(batch, objective.reports.batch(batch))
    assert (row.tolist(), column.tolist(), side) == ([0, 48], [48, 0], 16)
    for i in range(2):
        cut = images[i, 0, row[i] : row[i] + side, column[i] : column[i] + side]
        assert (cut == 1).all()
    # Mirrored, the corner is on the other side; cropped away, the map is zero and the window random.
    mirrored = _batch(images.flip(3), flip=torch.tensor([True, True]))
    assert objective._window(mirrored, objective.reports.batch(mirrored))[1].tolist() == [0, 48]
    left = torch.tensor([[0.0, 0.5, 0.5, 1.0]]).repeat(2, 1)
    elsewhere = _batch(images, crop=left)
    row, column, _ = objective._window(elsewhere, objective.reports.batch(elsewhere))
    assert int(row[1]) >= 32
    assert int(column[1]) <= 32


def test_maps_from_a_file_follow_the_crop(tmp_path: Path):
    whole = np.zeros((8, 8), np.float32)
    whole[1, 6] = 1
    np.savez(tmp_path / "maps.npz", **{"film-0": whole})
    file = WindowFile(tmp_path / "maps.npz", ("film-0", "film-1"))
    upper_right = torch.tensor([[0.5, 0.0, 1.0, 0.5]]).repeat(2, 1)
    flips = torch.tensor([False, False])
    cells = file.cells(torch.tensor([0, 1]), upper_right, flips, 4)
    assert cells[0].argmax() == 1 * 4 + 2  # row 1, column 6 - 4
    assert not cells[1].any()  # the file does not know this film
    mirrored = file.cells(torch.tensor([0, 1]), upper_right, ~flips, 4)
    assert mirrored[0].argmax() == 1 * 4 + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x0,y0,x1,y1\nfilm-0,0.5,0,0.2,1\n", "line 2: box"),
        ("id,x0,y0,x1,y1\nfilm-0,a,0,1,1\n", "line 2: not a window"),
        ("id,x,y\nfilm-0,0,1\n", "no column 'x0', 'y0', 'x1', 'y1'"),
        ("id,x0,y0,x1,y1\nother,0,0,1,1\n", "names none of the 1 pre-training images"),
    ],
)
def test_a_wrong_window_file_is_named(tmp_path: Path, text: str, message: str):
    file = tmp_path / "windows.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        WindowFile(file, ("film-0",))
    assert str(file) in str(caught.value)
    with pytest.raises(MissingError, match="no such window file"):
        WindowFile(tmp_path / "none.csv", ("film-0",))


def test_impossible_switches_are_refused():
    for options, message in (
        ({"fusion": "global"}, "window=attention needs cross-attention"),
        ({"window": "file"}, "go together"),
        ({"masking": "half"}, "unknown masking 'half'"),
    ):
        with pytest.raises(EcampError, match=message):
            make_plugin("ecamp.pretext", PluginRef(name="ecamp", options=options))


# --- windows from attention ------------------------------------------------------------------------


def test_windows_are_random_until_the_warm_up_is_over():
    objective = _objective(("a nodule.",) * 4, window_warmup=0.5, window_size=0.25)
    images = torch.randn(4, 1, 64, 64)
    early, late = _batch(images, 4, 10), _batch(images, 5, 10)
    assert objective._maps(early, objective.reports.batch(early)) is None
    assert objective._maps(late, objective.reports.batch(late)) is not None


def test_the_averaged_copy_is_updated_and_gets_no_gradient():
    objective = _objective(("a nodule.",) * 4, window_ema=0.9)
    assert objective.teacher is not None
    weight = objective.encoder.vit.norm.weight
    before = objective.teacher.parts["encoder"].vit.norm.weight.clone()
    with torch.no_grad():
        weight.add_(1)
    objective.after_step()
    after = objective.teacher.parts["encoder"].vit.norm.weight
    torch.testing.assert_close(after, 0.9 * before + 0.1 * weight)
    objective(_batch(torch.randn(4, 1, 64, 64)))["loss"].backward()
    assert all(p.grad is None for p in objective.teacher.parameters())


KINDS = ("nodule", "mass", "effusion", "opacity")
CELLS, PATCH = 4, 8


def _planted(count: int) -> tuple[torch.Tensor, tuple[str, ...], torch.Tensor]:
    """Noise with two bright lesions: one of four textures that the report names, one plain square.

    Returns:
        Images; reports; first row and column of the named lesion, int64 (count, 2).
    """
    rng = np.random.default_rng(0)
    side = CELLS * PATCH
    images = rng.normal(0, 0.3, (count, 1, side, side)).astype(np.float32)
    down, across = np.mgrid[:PATCH, :PATCH] // 2 % 2
    textures = [across, down, (down + across) % 2, (np.mgrid[:PATCH, :PATCH].sum(0)) // 2 % 2]
    corners = np.empty((count, 2), np.int64)
    for i in range(count):
        places = rng.permutation(CELLS**2)[:2]
        rows, columns = places // CELLS * PATCH, places % CELLS * PATCH
        for y, x, texture in zip(
            rows, columns, (textures[i % 4], np.ones((PATCH, PATCH))), strict=True
        ):
            images[i, 0, y : y + PATCH, x : x + PATCH] += 2.5 * texture
        corners[i] = rows[0], columns[0]
    reports = tuple(f"there is a large {KINDS[i % 4]}." for i in range(count))
    return torch.from_numpy(images), reports, torch.from_numpy(corners)


@pytest.mark.slow
def test_after_short_training_the_window_lands_on_the_lesion_that_the_report_names():
    images, reports, corner = _planted(512)
    objective = _objective(
        reports, "width=64&depth=1&image_size=32", window_size=1 / CELLS, mask_ratio=0.25,
        text_width=64, text_depth=1, text_length=16, vocab_size=200, decoder_width=32,
        decoder_depth=1, window_warmup=0.0, window_ema=0.95,
    )  # fmt: skip
    optimizer = adamw(objective, lr=2e-3, weight_decay=0.01)

    def hits() -> float:
        batch = _batch(images, 10_000)
        row, column, _ = objective._window(batch, objective.reports.batch(batch))
        return float(((row == corner[:, 0]) & (column == corner[:, 1])).float().mean())

    before = hits()
    for step in range(150):
        chosen = torch.randint(0, 512, (32,), generator=torch.Generator().manual_seed(step))
        loss = objective(_batch(images[chosen], step, index=chosen))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        objective.after_step()
    # Chance is 1 in 16; always the brighter, unnamed lesion would be 0.
    assert before < 0.5
    assert hits() > 0.8
