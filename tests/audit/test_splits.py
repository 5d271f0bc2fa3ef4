"""Planted leaks of every kind are found, with their numbers; clean lists give nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.audit.splits import AuditContext, AuditItem, SplitList, audit_lists
from ecamp.cli import run


def item(k: int, patient: int | None = None, **more: object) -> AuditItem:
    return AuditItem(f"{k}.png", f"p{k if patient is None else patient}", row=f"line {k}", **more)  # type: ignore[arg-type]


def clean(count: int = 40) -> dict[str, list[AuditItem]]:
    """Three splits of `count` images, two per patient, both labels in each."""
    out: dict[str, list[AuditItem]] = {}
    for s, split in enumerate(("train", "val", "test")):
        base = 1000 * s
        out[split] = [
            item(base + k, base + k // 2, labels=(k % 2, int(k % 3 == 0))) for k in range(count)
        ]
    return out


def found(
    lists: dict[str, list[AuditItem]], facts: AuditContext | None = None
) -> dict[str, tuple[str, int]]:
    listings = []
    for name, items in lists.items():
        split, _, percent = name.partition("_")
        listings.append(SplitList(split, tuple(items), float(percent or 100)))
    return {f.check: (f.severity, f.count) for f in audit_lists(listings, facts or AuditContext())}


def test_clean_lists_give_nothing() -> None:
    lists = clean()
    lists["train_10"] = lists["train"][:8]
    lists["train_1"] = lists["train"][:4]
    assert found(lists) == {}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_shared_images_are_counted(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    lists = clean()
    moved = [lists["train"][i] for i in rng.choice(40, count, replace=False)]
    lists["test"] = lists["test"] + moved
    findings = found(lists)
    assert findings["shared-images"] == ("leak", count)
    # The rest of a moved patient: an image that is not the moved one.
    if "shared-patients" in findings:
        assert findings["shared-patients"][0] == "leak"


def test_validation_equal_to_test() -> None:
    lists = clean()
    lists["val"] = list(lists["test"])
    assert found(lists) == {"equal-lists": ("leak", 40)}


def test_another_film_of_a_test_patient_in_train() -> None:
    lists = clean()
    lists["test"][5] = item(2005, 3, labels=(1, 0))
    assert found(lists) == {"shared-patients": ("leak", 1)}


def test_the_fellow_eye() -> None:
    def eye(patient: int, side: str) -> AuditItem:
        return AuditItem(f"{patient}_{side}.jpg", str(patient))

    lists = {
        "train": [eye(k, "left") for k in range(10)],
        "test": [eye(k, "right") for k in range(3)] + [eye(50, "left"), eye(50, "right")],
    }
    assert found(lists) == {"fellow-eye": ("leak", 3)}


def test_test_items_in_a_training_fraction_only() -> None:
    lists = clean()
    lists["train_10"] = [*lists["train"][:8], lists["test"][0]]
    findings = found(lists)
    assert findings["shared-images"] == ("leak", 1)
    assert findings["not-nested"] == ("note", 1)


def test_a_fraction_does_not_repeat_findings_of_the_whole() -> None:
    lists = clean()
    lists["test"] = [*lists["test"], lists["train"][0]]
    lists["train_10"] = lists["train"][:8]
    listings = [
        SplitList(n.partition("_")[0], tuple(v), float(n.partition("_")[2] or 100))
        for n, v in lists.items()
    ]
    checks = [f.check for f in audit_lists(listings, AuditContext())]
    assert checks.count("shared-images") == 1


def test_fractions_that_are_not_nested() -> None:
    lists = clean()
    lists["train_10"] = lists["train"][:8]
    lists["train_1"] = lists["train"][6:10]
    assert found(lists) == {"not-nested": ("note", 2)}


def test_repeated_rows() -> None:
    lists = clean()
    lists["val"] += [lists["val"][0], lists["val"][0], lists["val"][3]]
    assert found(lists) == {"repeated": ("error", 3)}


def test_labels() -> None:
    lists = clean()
    lists["train"][2] = item(2, 1, labels=(2, 0))
    assert found(lists) == {"label-values": ("error", 1)}
    lists = clean()
    lists["val"] = [item(1000 + k, labels=(0, 1)) for k in range(4)]
    assert found(lists) == {"no-positives": ("note", 1)}
    exclusive = {"train": [item(0, labels=(1, 0)), item(1, labels=(1, 1)), item(2, labels=(0, 1))]}
    assert found(exclusive, AuditContext(exclusive=True)) == {"not-exclusive": ("error", 1)}


def test_boxes() -> None:
    size = AuditContext(size=(100, 100))
    lists = {"train": [
        item(0, boxes=((0.0, 0.0, 100.0, 100.0),)),
        item(1, boxes=((90.0, 90.0, 101.0, 95.0),)),
        item(2, boxes=((5.0, 5.0, 5.0, 9.0), (9.0, 9.0, 3.0, 12.0))),
        item(3, boxes=((1.0, 1.0, 2.0, 2.0), (1.0, 1.0, 2.0, 2.0))),
    ]}  # fmt: skip
    assert found(lists, size) == {
        "box-outside": ("error", 1), "box-empty": ("error", 2), "box-twice": ("error", 1),
    }  # fmt: skip


@pytest.mark.slow
def test_112_000_rows_take_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The size of ChestX-ray14; a wrong complexity would take hours."""
    rng = np.random.default_rng(0)
    for split, first, count in (
        ("train", 0, 78_468),
        ("val", 78_468, 11_219),
        ("test", 89_687, 22_433),
    ):
        rows = rng.random((count, 14)) < 0.05
        text = "\n".join(
            f"images_001/{(first + k) // 3:08d}_{k % 3:03d}.png "
            + " ".join(map(str, row.astype(int)))
            for k, row in enumerate(rows)
        )
        (tmp_path / f"{split}_list.txt").write_text(text + "\n")
    assert run(["data", "audit", "--lists", str(tmp_path), "-f", "json"]) in (0, 5)
    findings = json.loads(capsys.readouterr().out)
    assert {f["severity"] for f in findings} <= {"leak", "note"}


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "val_list.txt").write_text("a.png 0\nb.png 1\n")
    (tmp_path / "test_list.txt").write_text("a.png 0\nb.png 1\n")
    assert run(["data", "audit", "--lists", str(tmp_path)]) == 5
    out, err = capsys.readouterr()
    assert "leak" in out
    assert "val and test are the same 2 images" in out
    assert "val 2, test 2 rows" in err
    (tmp_path / "val_list.txt").write_text("c.png 0\nd.png 1\n")
    assert run(["data", "audit", "--lists", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing found\n"
    for arguments, code in (
        ([], 2), (["phantom", "--lists", str(tmp_path)], 2), (["--lists", str(tmp_path / "no")], 4),
        (["--lists", str(tmp_path), "--size", "big"], 2), (["no-such-set"], 4),
    ):  # fmt: skip
        assert run(["data", "audit", *arguments]) == code
