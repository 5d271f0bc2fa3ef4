"""Truths of a data set's own: numbers, vectors, texts and points, from the table to the task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample, Truth
from ecamp.api.plugin import PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.data.arrays import Arrays, materialise
from ecamp.errors import DataError, UsageError
from ecamp.export.pack import pack
from ecamp.plugin.host import make_plugin

SPLITS = ["train", "train", "val", "test"]
TRUTHS = (
    Truth("age", "number", unit="years"),
    Truth("angles", "vector", 2),
    Truth("note", "text"),
    Truth("tips", "points"),
)
AGES = [31.5, None, 70, 8]
ANGLES = [(1.0, 2.0), (3, 4), None, (-1.5, 0)]
NOTES = ["fine", None, "", "two  lines"]
TIPS = [[(1.0, 2.0), (30.0, 9.0)], [], None, [(5.5, 0.0)]]


class Films(Dataset[PluginConfig]):
    """Four images of 40 x 20 with every kind of truth."""

    truths: Any = None  # instead of those of a record, for bad ones

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("films", "1", truths=TRUTHS)

    def records(self) -> Sequence[Record]:
        values = zip(AGES, ANGLES, NOTES, strict=True)
        return [
            Record(
                str(i), f"p{i}", SPLITS[i], f"row {i}", payload=i,
                truths=self.truths or {"age": age, "angles": angles, "note": note},
            )
            for i, (age, angles, note) in enumerate(values)
        ]  # fmt: skip

    def load(self, record: Record, size: int) -> Sample:
        tips = TIPS[record.payload]
        points = {} if tips is None else {"tips": np.array(tips, np.float32).reshape(-1, 2)}
        image = np.full((20, 40, 1), record.payload, np.uint8)
        return Sample(image, points=points)

    def fingerprint(self) -> str:
        return "films"


def check(arrays: Arrays) -> None:
    """Compare with the lists above; a side of 40 pixels became 20."""
    nan = np.nan
    np.testing.assert_array_equal(arrays.truths["age"], [31.5, nan, 70, 8])
    np.testing.assert_array_equal(arrays.truths["angles"], [[1, 2], [3, 4], [nan, nan], [-1.5, 0]])
    assert arrays.truths["note"] == ("fine", "", "", "two  lines")
    for found, expected in zip(arrays.truths["tips"], TIPS, strict=True):
        if expected is None:
            assert found is None
            continue
        # 10 black rows above and below, then half the size.
        np.testing.assert_allclose(found, [(x / 2, (y + 10) / 2) for x, y in expected] or found)
        assert found.shape == (len(expected), 2)
    assert arrays.known("age").tolist() == [True, False, True, True]
    assert arrays.known("angles").tolist() == [True, True, False, True]
    assert arrays.known("note").tolist() == [True, False, False, True]
    assert arrays.known("tips").tolist() == [True, True, False, True]
    part = arrays.subset(np.array([3, 0]))
    np.testing.assert_array_equal(part.truths["age"], [8, 31.5])
    assert part.truths["note"] == ("two  lines", "fine")
    assert [len(tips) for tips in part.truths["tips"]] == [1, 2]


def decode(dataset: Dataset, tmp_path: Path, **options: Any) -> Arrays:
    return materialise(
        dataset, 20, splits=["train", "val", "test"], cache=tmp_path / "cache", workers=1, **options
    )


def test_every_kind_reaches_the_arrays(tmp_path: Path) -> None:
    dataset = Films(PluginConfig())
    check(decode(dataset, tmp_path))
    check(decode(dataset, tmp_path))  # mapped, not decoded


def test_a_pack_keeps_every_kind(tmp_path: Path) -> None:
    pack(Films(PluginConfig()), tmp_path / "pack", 20, workers=1)
    packed = make_plugin(
        "ecamp.datasets", PluginRef(name="packed", options={"path": str(tmp_path / "pack")})
    )
    assert packed.info.truths == TRUTHS
    check(decode(packed, tmp_path))


@pytest.mark.parametrize(
    ("truths", "message"),
    [
        ({"weight": 1.0}, "truth 'weight' is not declared.*age, angles, note, tips"),
        ({"age": "old"}, "truth 'age' is 'old', not a finite number"),
        ({"age": float("nan")}, "truth 'age' is nan, not a finite number"),
        ({"angles": (1.0,)}, "truth 'angles' is .1.0,., not 2 numbers"),
        ({"note": 3}, "truth 'note' is 3, not a text"),
        ({"tips": [(1, 2)]}, "points come with Sample.points"),
    ],
)
def test_a_truth_that_is_not_as_declared_is_named_with_its_row(
    truths: dict[str, Any], message: str, tmp_path: Path
) -> None:
    dataset = Films(PluginConfig())
    dataset.truths = truths
    with pytest.raises(DataError, match=f"(?s)0 .row 0.*{message}"):
        decode(dataset, tmp_path)


def test_points_that_are_not_declared_are_refused(tmp_path: Path) -> None:
    class Wrong(Films):
        def load(self, record: Record, size: int) -> Sample:
            return Sample(np.zeros((4, 4, 1), np.uint8), points={"ends": np.zeros((1, 2))})

    with pytest.raises(DataError, match=r"points 'ends' of shape .1, 2. are not declared"):
        decode(Wrong(PluginConfig()), tmp_path)


def test_names_that_are_taken_and_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="that one is taken"):
        Truth("mask", "number")
    with pytest.raises(ValueError, match="has a length"):
        Truth("a", "vector")
    with pytest.raises(ValueError, match="has a length"):
        Truth("a", "number", 2)


# --- dataset.yaml -------------------------------------------------------------------------------


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with a table; keywords replace fields of dataset.yaml."""

    def write(table: Sequence[str] | None = None, **fields: Any) -> Path:
        rows = table or [
            "id,image,who,split,years,c1,c2,remark",
            "0,i.png,p0,train,31.5,1,2,fine",
            "1,i.png,p1,train,,3,4,",
            '2,i.png,p2,val, 7e1 ,,,""',
            '3,i.png,p3,test,8,-1.5,0,"two, lines"',
        ]
        Image.new("L", (8, 8)).save(tmp_path / "i.png")
        (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
        layout = {
            "name": "mine", "table": "t.csv", "id": "id", "image": "image", "patient": "who",
            "split": {"column": "split"}, "numbers": {"age": "years"},
            "vectors": {"angles": ["c1", "c2"]}, "texts": {"remark": "remark"}, **fields,
        }  # fmt: skip
        (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(layout))
        return tmp_path / "dataset.yaml"

    return write


def test_columns_become_truths(described: Callable[..., Path], tmp_path: Path) -> None:
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(str(described())))
    assert dataset.info.known_truths == ("age", "angles", "remark")
    arrays = decode(dataset, tmp_path)
    np.testing.assert_array_equal(arrays.truths["age"], [31.5, np.nan, 70, 8])
    np.testing.assert_array_equal(
        arrays.truths["angles"], [[1, 2], [3, 4], [np.nan, np.nan], [-1.5, 0]]
    )
    assert arrays.truths["remark"] == ("fine", "", "", "two, lines")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,i.png,p0,train,old,1,2,fine", "line 2: 'old' in 'years' is not a number"),
        ("0,i.png,p0,train,nan,1,2,fine", "line 2: 'nan' in 'years' is not a number"),
        ("0,i.png,p0,train,1,1,,fine", "line 2: 'c2' is empty, other columns of 'angles' are not"),
    ],
)
def test_a_bad_value_is_named_with_row_and_column(
    row: str, message: str, described: Callable[..., Path]
) -> None:
    file = described(["id,image,who,split,years,c1,c2,remark", row])
    with pytest.raises(DataError, match=message):
        make_plugin("ecamp.datasets", PluginRef.parse(str(file))).records()


def test_a_name_that_is_taken_is_refused_by_field(described: Callable[..., Path]) -> None:
    file = described(numbers={"report": "years"})
    with pytest.raises(UsageError, match="truth 'report': choose another name"):
        _ = make_plugin("ecamp.datasets", PluginRef.parse(str(file))).info


def test_a_missing_column_names_its_field(described: Callable[..., Path]) -> None:
    file = described(numbers={"age": "yeers"})
    with pytest.raises(DataError, match=r"(?s)yeers.*numbers.age|numbers.age.*yeers"):
        make_plugin("ecamp.datasets", PluginRef.parse(str(file))).records()


# --- a stranger's task --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_strangers_regression_is_benchmarked_reported_compared_and_scored_again(
    tmp_path: Path,
) -> None:
    """Installed for real; lower is better, and its truth is none that we know."""
    site, run = tmp_path / "site", tmp_path / "run"
    example = Path(__file__).parents[2] / "plugins" / "ecamp-example"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--target", str(site), str(example)], check=True, capture_output=True,
    )  # fmt: skip

    def ecamp(*args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ecamp", *args], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    bench = (
        "bench", "--tasks", "extent?penalties=[1, 10],cls", "--datasets", "shapes,phantom?pretrain=0"
        "&train=24&val=12&test=12", "--encoders", "tiny-conv?width=16,tiny-conv?width=32",
        "--pretext", "none", "--protocols", "linear", "--fractions", "1", "--seeds", "0,1",
        "--bootstrap", "200", "--run", str(run), "--cache", str(tmp_path / "cache"), "-f", "json",
    )  # fmt: skip
    done = ecamp(*bench)
    assert "phantom?pretrain=0" in done.stderr
    assert "has no extent (it has labels, mask, boxes, report)" in done.stderr
    rows = [row for row in json.loads(done.stdout) if row["task"] == "extent"]
    assert {(r["metric"], r["higher_is_better"], r["floor_name"]) for r in rows} == {
        ("mean_error", False, "mean")
    }
    for row in rows:
        assert row["below_floor"] == (row["value"] >= row["floor"])
        assert row["test"] == 20  # images without a shape have no extent
    assert "0 cells done" in ecamp(*bench).stderr
    assert "lower is better" in (run / "report" / "index.html").read_text()
    parts = [f"{run}:encoder=tiny-conv?width={width},task=extent" for width in (16, 32)]
    (difference,) = json.loads(ecamp("compare", *parts, "-f", "json").stdout)
    small, large = (
        next(r["value"] for r in rows if r["encoder"] == f"tiny-conv?width={width}")
        for width in (16, 32)
    )
    assert difference["delta"] == pytest.approx(large - small)
    if difference["verdict"] != "tie":
        assert difference["verdict"] == ("better" if large < small else "worse")
    before = {p: p.read_bytes() for p in sorted(run.glob("cells/*/result.json"))}
    ecamp("rescore", str(run))
    assert {p: p.read_bytes() for p in before} == before
