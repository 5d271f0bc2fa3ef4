"""The cache's entries: what is collected and never collected, what is damaged, what locks promise."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.api.plugin_ref import PluginRef
from ecamp.data.arrays import materialise
from ecamp.errors import EcampError
from ecamp.plugin.host import make_plugin
from ecamp.storage.cache import (
    Entry,
    EntryLease,
    list_entries,
    remove,
    remove_stale,
    select_for_eviction,
    stale_files,
    verify,
    write_meta,
)
from ecamp.storage.files import locked


def entry(root: Path, kind: str, key: str, *, size: int = 10, used: float = 0.0) -> Path:
    """Create an entry with one file of `size` bytes and a time of last use."""
    folder = root / kind / key
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"x" * size)
    write_meta(folder, f"label of {key}", ["weights.safetensors"])
    EntryLease(folder).close()
    os.utime(folder / "used", (used, used))
    folder.with_suffix(".lock").touch()
    return folder


def test_entries_report_their_kind_and_last_use(tmp_path: Path) -> None:
    entry(tmp_path, "pretrain", "old", used=100.0)
    entry(tmp_path, "pretrain", "new", used=200.0)
    found = list_entries(tmp_path)
    assert [(e.key, e.last_used, e.label, e.in_use) for e in found] == [
        ("new", 200.0, "label of new", False),
        ("old", 100.0, "label of old", False),
    ]
    assert found[0].bytes == sum(f.stat().st_size for f in (tmp_path / "pretrain/new").iterdir())
    began = time.time()
    with locked(tmp_path / "pretrain" / "old.lock"):
        use = EntryLease(tmp_path / "pretrain" / "old")
    first = list_entries(tmp_path)[0]
    assert first.key == "old"
    assert first.last_used >= began - 1
    assert first.in_use
    use.close()


def test_an_entry_in_use_or_being_made_is_never_removed(tmp_path: Path) -> None:
    folder = entry(tmp_path, "features", "a")
    first, second = EntryLease(folder), EntryLease(folder)
    assert not remove(folder)
    first.close()
    assert not remove(folder)
    del second  # forgotten counts as closed
    with locked(folder.with_suffix(".lock")):
        assert not remove(folder)
    assert remove(folder)
    assert list(tmp_path.glob("features/*")) == []


def test_another_process_that_uses_an_entry_keeps_it(tmp_path: Path) -> None:
    folder = entry(tmp_path, "features", "a")
    code = (
        "import sys; from pathlib import Path; from ecamp.storage.cache import EntryLease\n"
        f"use = EntryLease(Path({str(folder)!r})); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert list_entries(tmp_path)[0].in_use
        assert not remove(folder)
        process.kill()  # the system lets go of a dead process's locks
        process.wait()
    assert remove(folder)


def test_a_waiter_for_a_collected_lock_still_excludes_others(tmp_path: Path) -> None:
    lock, order = tmp_path / "a.lock", []
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with locked(lock):
            order.append("waited")
            inside.set()
            leave.wait()
            order.append("left")

    thread = threading.Thread(target=wait)
    with locked(lock):
        thread.start()
        time.sleep(0.2)  # the thread has opened the file and waits
        lock.unlink()  # as garbage collection does
    inside.wait()
    with locked(lock, wait=False) as mine:
        assert not mine
    leave.set()
    with locked(lock):
        order.append("next")
    thread.join()
    assert order == ["waited", "left", "next"]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100), st.booleans()), max_size=12),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 300),
)
def test_collection_keeps_its_rules(
    drawn: list[tuple[int, int, bool]], days: int | None, most: int | None
) -> None:
    entries = [
        Entry("features", f"{i:02}", Path(f"{i:02}"), "", size, float(used), busy)
        for i, (used, size, busy) in enumerate(drawn)
    ]
    chosen = select_for_eviction(entries, older_than=days, max_bytes=most, now=50.0)
    kept = [e for e in entries if e not in chosen]
    assert not any(e.in_use for e in chosen)
    if days is not None:
        assert all(e.in_use or e.last_used >= 50 - days for e in kept)
    if most is not None:
        free = [e for e in kept if not e.in_use]
        assert sum(e.bytes for e in kept) <= most or not free
        # Nothing was used more recently than what stays, unless by age.
        for gone in chosen:
            if days is None or gone.last_used >= 50 - days:
                assert all((e.last_used, e.key) > (gone.last_used, gone.key) for e in free)
        if days is None and chosen:  # no more than needed
            assert sum(e.bytes for e in kept) + chosen[-1].bytes > most
    if days is None and most is None:
        assert not chosen


def test_leftovers_of_the_dead_go_those_of_the_living_stay(tmp_path: Path) -> None:
    kept = entry(tmp_path, "pretrain", "aa")
    (tmp_path / "pretrain" / ".bb.x1y2").mkdir()
    (tmp_path / "pretrain" / ".bb.x1y2" / "checkpoint.pt").write_bytes(b"half")
    (tmp_path / "pretrain" / "cc.lock").touch()
    (kept / ".weights.safetensors.zz").write_bytes(b"half")
    names = ["pretrain/.bb.x1y2", "pretrain/aa/.weights.safetensors.zz", "pretrain/cc.lock"]

    def found() -> list[str]:
        return sorted(str(p.relative_to(tmp_path)) for p in stale_files(tmp_path))

    assert found() == names
    for key, name in (("bb", names[0]), ("aa", names[1]), ("cc", names[2])):
        with locked(tmp_path / "pretrain" / f"{key}.lock"):
            assert name not in found()
    for path in stale_files(tmp_path):
        remove_stale(path)
    assert stale_files(tmp_path) == []
    assert {p.name for p in (tmp_path / "pretrain").iterdir()} == {"aa", "aa.lock"}
    assert verify(list_entries(tmp_path)[0]) is None


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a cache with decoded images of the phantom."""
    root = tmp_path_factory.mktemp("cache")
    data = make_plugin("ecamp.datasets", PluginRef.parse("phantom?pretrain=4&train=4&val=4&test=4"))
    materialise(data, 32, splits=["train", "val"], cache=root, workers=1)
    return root


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "truth.npz", "meta.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
@pytest.mark.parametrize("hashed", [True, False])
def test_damage_is_found(decoded: Path, name: str, how: str, hashed: bool) -> None:
    (item,) = list_entries(decoded)
    before = {path: path.read_bytes() for path in item.folder.iterdir()}
    try:
        if not hashed:  # as entries were before hashes were kept
            (item.folder / "meta.json").write_text('{"skipped": [], "size": 32}')
        assert verify(item) is None
        path = item.folder / name
        content = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            # In a zip, where its checksum looks: not in a time stamp.
            position = content.index(b"NUMPY") + 20 if name == "truth.npz" else len(content) // 2
            content[position] ^= 0x40
            path.write_bytes(content)
        problem = verify(item)
        if how == "flip" and (name == "meta.json" or (not hashed and name.endswith(".npy"))):
            return  # a changed letter of a label, a pixel without a hash: nobody can know
        assert problem is not None
        assert name in problem
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def test_an_unfinished_pretraining_is_not_damage_a_torn_checkpoint_is(tmp_path: Path) -> None:
    folder = tmp_path / "pretrain" / "aa"
    folder.mkdir(parents=True)
    write_meta(folder, "mae", [])
    np.savez(folder / "checkpoint.npz", a=np.arange(1000))
    (folder / "checkpoint.npz").rename(folder / "checkpoint.pt")  # both are zip files
    (item,) = list_entries(tmp_path)
    assert item.label == "mae (unfinished)"
    assert verify(item) is None
    content = (folder / "checkpoint.pt").read_bytes()
    (folder / "checkpoint.pt").write_bytes(content[:-40])
    assert verify(item) == "checkpoint.pt cannot be read"


@pytest.mark.slow
def test_workers_do_not_change_the_arrays(tmp_path: Path) -> None:
    data = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=4&train=70&val=4&test=4")
    )
    one, two = (
        materialise(data, 32, splits=["train"], cache=tmp_path / str(workers), workers=workers)
        for workers in (1, 2)
    )
    assert one.key == two.key
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.masks, two.masks)
    assert np.array_equal(one.boxes, two.boxes)


def test_damaged_arrays_name_the_command_that_helps(decoded: Path) -> None:
    data = make_plugin("ecamp.datasets", PluginRef.parse("phantom?pretrain=4&train=4&val=4&test=4"))
    (item,) = list_entries(decoded)
    content = (item.folder / "images.npy").read_bytes()
    try:
        (item.folder / "images.npy").write_bytes(content[:50])
        with pytest.raises(EcampError, match="ecamp cache verify --kind arrays --delete"):
            materialise(data, 32, splits=["train", "val"], cache=decoded)
    finally:
        (item.folder / "images.npy").write_bytes(content)
