"""Files found in folders as people unpack them; labels and boxes of tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.errors import DataError
from ecamp.io.boxes import fill_boxes, scale_boxes
from ecamp.io.folders import (
    ImageIndex,
    find_file,
    image_name,
    missing_file_error,
    resolve_below_root,
)
from ecamp.io.labels import from_findings, from_uncertain


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "images", "x.png"]), min_size=1, max_size=6),
       st.sampled_from(["", "/", "/films/", "./"]))  # fmt: skip
def test_a_path_never_leaves_the_root(parts: list[str], start: str) -> None:
    text = start + "/".join(parts)
    real = (Path("/films") / text).parts
    walked: list[str] = []
    for part in real:  # by hand: `..` goes up, at the top it stays
        if part == "..":
            walked = walked[:-1] if len(walked) > 1 else walked
        elif part != ".":
            walked.append(part)
    if walked[:2] == ["/", "films"]:
        found = Path("/films") / resolve_below_root(Path("/films"), text, "row 1")
        assert found == Path(*walked)
    else:
        with pytest.raises(DataError, match=r"row 1: .* is outside /films"):
            resolve_below_root(Path("/films"), text, "row 1")


def test_images_by_path_and_by_name(tmp_path: Path) -> None:
    touch(
        tmp_path / "train/a.b.1.PNG", tmp_path / "test/a.b.1.jpg", tmp_path / "train/deep/down/c.dcm",
        tmp_path / "elsewhere/d.png", tmp_path / "train/notes.txt",
    )  # fmt: skip
    (tmp_path / "train/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/deep/up").symlink_to(tmp_path / "train")
    index = ImageIndex(tmp_path, ("train", "test"))
    assert len(index.paths) == 4
    assert index.resolve("test/a.b.1.jpg") == "test/a.b.1.jpg"
    assert index.resolve("anywhere/a.b.1.tif") == "train/a.b.1.PNG"  # of two, PNG before JPEG
    assert index.resolve("c") == "train/deep/down/c.dcm"
    assert index.resolve("d.png") == "train/linked/d.png"
    assert index.resolve("none/e.png") == "none/e.png"
    assert not any("notes" in path for path in index.paths)


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b.png", "b"), ("1.2.276.490940", "1.2.276.490940"), ("x/1.2.3.dcm", "1.2.3"),
     ("COVID(1).JPG", "COVID(1)"), ("JPCLN001.IMG", "JPCLN001"), ("424_train_1_", "424_train_1_")],
)  # fmt: skip
def test_image_names_keep_their_dots(text: str, name: str) -> None:
    assert image_name(text) == name


def test_a_wrong_folder_names_its_files_and_likely_places(tmp_path: Path) -> None:
    touch(tmp_path / "data/inner/train.csv", tmp_path / "data/data.zip", tmp_path / "data/b.txt")
    text = str(missing_file_error(tmp_path / "data", ("train*.csv",), "See the guide."))
    assert "found no train*.csv; the folder contains b.txt, data.zip, inner." in text
    assert f"Is it root={tmp_path / 'data/inner'}?" in text
    touch(tmp_path / "other/archive.zip", *(tmp_path / f"other/{k:02}.txt" for k in range(20)))
    text = str(missing_file_error(tmp_path / "other", ("valid.csv",), "See the guide."))
    assert "00.txt" in text
    assert "and 13 more" in text
    assert "Unpack archive.zip? See the guide." in text
    assert "no such folder" in str(missing_file_error(tmp_path / "none", ("a",), ""))
    assert find_file(tmp_path / "data", "none", "b*", "*.zip") == tmp_path / "data/b.txt"


CLASSES = ("Mass", "Nodule", "Pleural_Thickening")


@given(st.sets(st.sampled_from(CLASSES)), st.sampled_from(["|", " | "]))
def test_findings(present: set[str], bar: str) -> None:
    text = bar.join(sorted(present)) or "No Finding"
    assert from_findings(text, CLASSES, "row") == tuple(int(name in present) for name in CLASSES)


@pytest.mark.parametrize("text", ["mass", "Mass,Nodule", "", "Mass|", "Masses"])
def test_findings_match_whole(text: str) -> None:
    """BenchX looks for a part of the text: Mass would be found in Masses."""
    with pytest.raises(DataError, match=r"row: unknown finding"):
        from_findings(text, CLASSES, "row")


def test_uncertain() -> None:
    assert [from_uncertain(t, 1, "row") for t in ("", "0.0", "1", "-1.0")] == [0, 0, 1, 1]
    assert from_uncertain("-1", None, "row") is None
    for bad in ("2", "nan", "yes", "0.5"):
        with pytest.raises(DataError, match="row"):
            from_uncertain(bad, 1, "row")


SIDE = st.integers(1, 40)


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), max_size=5), SIDE, SIDE)
def test_filled_boxes_pixel_by_pixel(
    drawn: list[tuple[int, int, int, int]], height: int, width: int
) -> None:
    boxes = [(min(a, b), min(c, d), max(a, b), max(c, d)) for a, b, c, d in drawn]
    mask = fill_boxes(np.array(boxes, np.float32).reshape(-1, 4), height, width)
    for y in range(height):
        for x in range(width):
            held = any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes)
            assert mask[y, x] == held


@given(st.tuples(*[st.floats(0, 1024, width=32)] * 4), SIDE, SIDE)
def test_boxes_keep_their_fraction_of_the_film(
    box: tuple[float, float, float, float], height: int, width: int
) -> None:
    (scaled,) = scale_boxes((box,), 1024, width, height)
    expected = np.array(box) / 1024 * [width, height, width, height]
    assert np.allclose(scaled, expected, rtol=1e-5)
    assert np.array_equal(scale_boxes((box,), None, width, height)[0], np.array(box, np.float32))
    assert scale_boxes((), 1024, width, height).shape == (0, 4)
