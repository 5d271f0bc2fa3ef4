"""`ecamp cache` as a user meets it, on the cache of a real little bench."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ecamp.cli import run
from ecamp.storage.cache import EntryLease


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays for pre-training and evaluation, one pre-training, features of two encoders."""
    root = tmp_path_factory.mktemp("made")
    data = "phantom?pretrain=8&train=16&val=8&test=8"
    args = ["bench", "--datasets", data, "--pretrain-data", data, "--pretext", "none,mae",
            "--encoders", "vit-micro?width=32&depth=1&heads=2&image_size=32&patch_size=8",
            "--tasks", "cls", "--seeds", "0", "--fractions", "1", "--bootstrap", "100",
            "--pretrain-steps", "2", "--run", str(root / "run"), "--cache", str(root / "cache")]  # fmt: skip
    assert run(args) == 0
    return root / "cache"


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """A copy, where the kinds were last used 3 (arrays), 2 (pretrain) and 1 (features) days ago."""
    root = tmp_path / "cache"
    shutil.copytree(made, root)
    for days, kind in ((3, "arrays"), (2, "pretrain"), (1, "features")):
        for mark in root.glob(f"{kind}/*/used"):
            os.utime(mark, (time.time() - 86_400 * days,) * 2)
    return root


def go(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    try:
        code = run(["cache", *map(str, args)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def kinds(root: Path) -> list[str]:
    return sorted(p.parent.name for p in root.glob("*/*") if p.is_dir())


ALL = ["arrays", "arrays", "features", "features", "pretrain"]


@pytest.mark.slow
def test_ls_lists_the_entries(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = go(capsys, "ls", "--cache", cache)
    assert code == 0
    assert "phantom/1-" in out
    assert "vit-micro?depth=1" in out
    assert " mae seed 0 on phantom" in out
    assert " none seed 0 on phantom" in out
    assert out.splitlines()[-1].startswith("total        5 entries")
    code, out, _ = go(capsys, "ls", "--cache", cache, "-f", "json")
    told = json.loads(out)
    assert sorted(e["kind"] for e in told["entries"]) == ALL
    size = sum(f.stat().st_size for f in cache.glob("*/*/**/*") if f.is_file())
    assert told["total_bytes"] == sum(told["bytes"].values()) == size
    assert not any(e["in_use"] for e in told["entries"])
    code, out, _ = go(capsys, "ls", "--cache", cache, "--kind", "features", "-f", "json")
    assert {e["kind"] for e in json.loads(out)["entries"]} == {"features"}
    code, out, _ = go(capsys, "ls", "--cache", cache / "nowhere")
    assert (code, out.splitlines()[-1].split()[:3]) == (0, ["total", "0", "entries"])
    assert not (cache / "nowhere").exists()


def test_gc_by_age_and_size_and_kind(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go(capsys, "gc", "--cache", cache)[0] == 0
    assert kinds(cache) == ALL  # no rule, nothing goes
    code, out, err = go(capsys, "gc", "--cache", cache, "--older-than", "2.5", "--dry-run")
    assert (code, out.count("arrays")) == (0, 2)
    assert "2 entries" in err
    assert kinds(cache) == ALL
    go(capsys, "gc", "--cache", cache, "--older-than", "1.5", "--kind", "arrays")
    assert kinds(cache) == ["features", "features", "pretrain"]
    assert list(cache.glob("arrays/*")) == []  # the locks went too
    # The least recently used first: the pre-training, though the features are smaller.
    files = [f for f in cache.glob("features/*/*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e9
    go(capsys, "gc", "--cache", cache, "--max-size", f"{size + 1e-6}")
    assert kinds(cache) == ["features", "features"]
    go(capsys, "gc", "--cache", cache, "--max-size", "0")
    assert kinds(cache) == []


def test_gc_keeps_what_is_in_use_and_takes_leftovers(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = next(p for p in cache.glob("features/*") if p.is_dir())
    (cache / "arrays" / ".abc.half").mkdir()
    (cache / "arrays" / "gone.lock").touch()
    use = EntryLease(used)
    code, out, err = go(capsys, "gc", "--cache", cache, "--max-size", "0")
    assert code == 0
    assert [p for p in cache.glob("*/*") if p.is_dir()] == [used]
    assert "leftover arrays/.abc.half" in out
    assert "leftover arrays/gone.lock" in out
    assert "4 entries" in err
    use.close()


def test_verify_finds_names_and_deletes(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = go(capsys, "verify", "--cache", cache)
    assert (code, out) == (0, "")
    assert "5 entries checked, 0 damaged" in err
    weights = next(cache.glob("pretrain/*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    next(cache.glob("features/*/features.safetensors")).unlink()
    for option in ((), ("--delete",)):
        code, out, err = go(capsys, "verify", "--cache", cache, *option)
        assert code == 1
        assert f"{weights.parent}: weights.safetensors differs from its hash" in out
        assert "features.safetensors is missing" in out
        assert "2 damaged" in err
        assert out.count("deleted") == 2 * len(option)
    assert kinds(cache) == ["arrays", "arrays", "features"]
    assert go(capsys, "verify", "--cache", cache)[0] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("gc", "--older-than", "soon"), "--older-than"),
        (("gc", "--max-size", "-1"), "--max-size"),
        (("ls", "--kind", "weights"), "--kind"),
    ],
)
def test_mistakes_are_named(
    args: tuple[str, ...], message: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = go(capsys, *args, "--cache", cache)
    assert code == 2
    assert message in err
