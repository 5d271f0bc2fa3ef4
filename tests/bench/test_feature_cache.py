"""Features from disk are the features, to the bit; what is damaged, other or too little is not used."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecamp.api.encoder import Encoder, EncoderPlugin, Features
from ecamp.api.plugin_ref import PluginRef
from ecamp.bench import feature_cache, features
from ecamp.bench.feature_cache import CachedFeatures, FeatureCache, feature_key, weights_digest
from ecamp.bench.features import feature_specs, fill_features, select_rows
from ecamp.cli import run
from ecamp.data.arrays import Arrays, materialise
from ecamp.data.normalise import normaliser
from ecamp.errors import EcampError, UsageError
from ecamp.plugin.host import make_plugin
from ecamp.storage.cache import list_entries, remove

VIT = PluginRef.parse("vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8")
CNN = PluginRef.parse("timm/resnet10t?image_size=32")
BOTH = frozenset({"pooled", "pyramid"})


def plugin(ref: PluginRef) -> EncoderPlugin:
    return make_plugin("ecamp.encoders", ref)


def build(ref: PluginRef = VIT, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    encoder: Encoder = make_plugin("ecamp.encoders", ref).build(1).eval()
    return encoder


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    data = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=4&train=24&val=8&test=9")
    )
    cache = tmp_path_factory.mktemp("cache")
    return materialise(data, 32, splits=["train", "val", "test"], cache=cache, workers=1)


def same(a: Features, b: Features) -> bool:
    pairs = zip((a.pooled, *a.pyramid), (b.pooled, *b.pyramid), strict=True)
    return a.grid == b.grid and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("ref", [VIT, CNN], ids=["vit", "cnn"])
def test_cold_warm_and_no_cache_give_the_same_bits_as_the_encoder(
    ref: PluginRef,
    arrays: Arrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    encoder = build(ref)
    cold = FeatureCache(tmp_path).get(encoder, plugin(ref), arrays, BOTH, "x")
    warm = FeatureCache(tmp_path).get(encoder, plugin(ref), arrays, BOTH, "x")
    monkeypatch.setenv("ECAMP_FEATURE_CACHE_GB", "0")
    none = FeatureCache(tmp_path / "other").get(encoder, plugin(ref), arrays, BOTH, "x")
    assert [f.origin for f in (cold, warm, none)] == ["computed", "disk", "computed"]
    assert not (tmp_path / "other").exists()
    assert logged.messages == []
    with torch.no_grad():
        out = encoder(normaliser(arrays.info)(arrays.images))
    expected = replace(out, pyramid=tuple(level.bfloat16() for level in out.pyramid))
    for found in (cold, warm, none):
        assert same(found.features, expected)
        assert found.features.tokens.shape == (len(arrays), 0, encoder.width)
        assert found.parameters == sum(p.numel() for p in encoder.parameters())
    assert warm.images_per_second == cold.images_per_second > 0
    assert warm.seconds == 0 < cold.seconds


def filled(encoder: Encoder, arrays: Arrays, batch: int) -> dict[str, torch.Tensor]:
    specs, _ = feature_specs(encoder, arrays, BOTH)
    out = {
        name: torch.full(shape, torch.nan, dtype=dtype) for name, (dtype, shape) in specs.items()
    }
    fill_features(encoder, arrays, out, batch)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("ref", [VIT, CNN], ids=["vit", "cnn"])
def test_batch_size_and_threads_differ_by_rounding_only(ref: PluginRef, arrays: Arrays) -> None:
    encoder = build(ref)
    whole = filled(encoder, arrays, 64)
    again = filled(encoder, arrays, 64)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for batch in (1, 7, 41):
                other = filled(encoder, arrays, batch)
                size = whole["pooled"].abs().max()
                assert (other["pooled"] - whole["pooled"]).abs().max() < 1e-5 * size
                for name in whole.keys() - {"pooled"}:
                    # A bfloat16 has 8 bits: the next one may be chosen, no other.
                    close = torch.isclose(other[name].float(), whole[name].float(), 2**-7, 1e-5)
                    assert close.all()
    finally:
        torch.set_num_threads(threads)


def test_the_key_holds_all_that_decides_and_nothing_else(
    arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = feature_key(build(), plugin(VIT), arrays)
    assert feature_key(build(), plugin(VIT), replace(arrays, ids=(), skipped=("a",))) == base
    assert (
        feature_key(build(), plugin(PluginRef(name="vit-micro", options=VIT.options)), arrays)
        == base
    )
    changed = build()
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1e-6
    info = arrays.info
    others = {
        feature_key(build(seed=1), plugin(VIT), arrays),
        feature_key(changed, plugin(VIT), arrays),
        feature_key(
            build(),
            plugin(VIT.model_copy(update={"options": {**VIT.options, "heads": "4"}})),
            arrays,
        ),
        feature_key(build(), plugin(VIT), replace(arrays, key="other")),
        feature_key(build(), plugin(VIT), replace(arrays, info=replace(info, mean=(0.4,)))),
        feature_key(build(), plugin(VIT), replace(arrays, info=replace(info, std=(0.4,)))),
        feature_key(build(), plugin(VIT), replace(arrays, info=replace(info, channels=3))),
    }
    monkeypatch.setattr(torch, "__version__", "9.9")
    others.add(feature_key(build(), plugin(VIT), arrays))
    monkeypatch.undo()
    monkeypatch.setattr(feature_cache, "FORMAT", -1)
    others.add(feature_key(build(), plugin(VIT), arrays))
    assert len(others) == 9
    assert base not in others


def test_the_digest_sees_names_types_shapes_and_buffers() -> None:
    def digest(**parts: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, value in parts.items():
            module.register_buffer(name, value)
        return weights_digest(module)

    zeros = torch.zeros(4)
    digests = [
        digest(a=zeros), digest(b=zeros), digest(a=zeros.reshape(2, 2)), digest(a=zeros.int()),
        digest(a=zeros, b=zeros), digest(a=zeros + 1), digest(a=torch.tensor(0.0)),
        digest(a=torch.tensor(True)),
    ]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert digest(a=zeros) == digest(a=torch.zeros(8)[::2])


def entry(root: Path) -> Path:
    (folder,) = (f for f in (root / "features").iterdir() if f.is_dir())
    return folder


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "meta", "no-file-in-meta"])
def test_a_damaged_file_is_noticed_said_and_made_again(
    how: str, arrays: Arrays, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    encoder = build()
    first = filled(encoder, arrays, features.BATCH)
    FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x")
    path = entry(tmp_path) / "features.safetensors"
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[-100] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:-100])
    elif how == "gone":
        path.unlink()
    elif how == "meta":
        (entry(tmp_path) / "meta.json").write_text("{")
    else:
        meta = json.loads((entry(tmp_path) / "meta.json").read_text())
        (entry(tmp_path) / "meta.json").write_text(json.dumps({**meta, "reads": 3}))
    again = FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x")
    assert again.origin == "computed"
    assert torch.equal(again.features.pooled, first["pooled"])
    assert torch.equal(again.features.pyramid[1], first["pyramid.1"])
    assert len(logged.messages) == 1
    assert str(entry(tmp_path)) in logged.messages[0]
    assert "damaged" in logged.messages[0]
    logged.clear()
    assert FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x").origin == "disk"
    assert logged.messages == []


def test_an_encoder_whose_code_changed_is_noticed(
    arrays: Arrays, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    encoder = build()
    FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x")
    forward = encoder.forward
    encoder.forward = lambda images: forward(images.flip(-1))  # type: ignore[method-assign]
    found = FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x")
    assert found.origin == "computed"
    assert "its code has changed" in logged.messages[0]
    assert torch.equal(found.features.pooled, filled(encoder, arrays, features.BATCH)["pooled"])


def test_only_features_that_are_read_are_stored_and_incomplete_ones_recomputed(
    arrays: Arrays, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    encoder = build()
    cache = FeatureCache(tmp_path)
    small = cache.get(encoder, plugin(VIT), arrays, frozenset({"pooled"}), "x")
    path = entry(tmp_path) / "features.safetensors"
    assert set(load_file(path)) == {"pooled"}
    assert small.features.pyramid == ()
    whole = cache.get(encoder, plugin(VIT), arrays, BOTH, "x")
    assert whole.origin == "computed"
    assert set(load_file(path)) == {"pooled", "pyramid.0", "pyramid.1"}
    assert torch.equal(whole.features.pooled, small.features.pooled)
    again = cache.get(encoder, plugin(VIT), arrays, frozenset({"pooled"}), "x")
    assert again.origin == "disk"
    assert len(again.features.pyramid) == 2
    assert logged.messages == []
    key = feature_key(encoder, plugin(VIT), arrays)
    assert cache.holds(key, BOTH)
    assert not cache.holds("other", BOTH)


def test_beyond_the_limit_features_stay_in_memory_and_that_is_said_once(
    arrays: Arrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    encoder = build()
    expected = FeatureCache(tmp_path / "a").get(encoder, plugin(VIT), arrays, BOTH, "x")
    monkeypatch.setenv("ECAMP_FEATURE_CACHE_GB", "0.00005")
    cache = FeatureCache(tmp_path / "b")
    for _ in range(2):
        found = cache.get(encoder, plugin(VIT), arrays, BOTH, "vit on phantom")
        assert found.origin == "computed"
        assert same(found.features, expected.features)
    assert list_entries(tmp_path / "b") == []
    assert len(logged.messages) == 1
    assert "vit on phantom" in logged.messages[0]
    assert "ECAMP_FEATURE_CACHE_GB" in logged.messages[0]
    for bad in ("much", "-1", "nan"):
        monkeypatch.setenv("ECAMP_FEATURE_CACHE_GB", bad)
        with pytest.raises(UsageError, match="ECAMP_FEATURE_CACHE_GB"):
            cache.get(encoder, plugin(VIT), arrays, BOTH, "x")


@pytest.mark.parametrize("when", ["create_tensors", "sync", "write_meta"])
def test_a_full_disk_loses_nothing(
    when: str,
    arrays: Arrays,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    encoder = build()
    expected = FeatureCache(tmp_path / "a").get(encoder, plugin(VIT), arrays, BOTH, "x")
    passes: list[int] = []

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    def counted(*args: Any, **more: Any) -> float:
        passes.append(1)
        return fill_features(*args, **more)

    monkeypatch.setattr(feature_cache, when, full)
    monkeypatch.setattr(feature_cache, "fill_features", counted)
    found = FeatureCache(tmp_path / "b").get(encoder, plugin(VIT), arrays, BOTH, "x")
    assert same(found.features, expected.features)
    assert passes == [1]  # computed once, whenever the disk was full
    assert "No space left on device" in logged.messages[0]
    assert [p.name for p in (tmp_path / "b" / "features").iterdir() if p.suffix != ".lock"] == []


def test_memory_that_runs_out_ends_in_smaller_batches(arrays: Arrays, tmp_path: Path) -> None:
    encoder = build()
    expected = filled(encoder, arrays, 10)  # 41 images: 41, 20, then 10 at a time
    forward = encoder.forward

    def limited(images: torch.Tensor) -> Features:
        if len(images) > 19:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return forward(images)

    encoder.forward = limited  # type: ignore[method-assign]
    found = FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x").features
    assert torch.equal(found.pooled, expected["pooled"])

    def never(images: torch.Tensor) -> Features:
        if len(images) > 1:
            raise MemoryError
        if len(seen) > 3:
            raise MemoryError
        seen.append(1)
        return forward(images)

    seen: list[int] = []
    encoder.forward = never  # type: ignore[method-assign]
    with pytest.raises(EcampError, match="batch of one"):
        FeatureCache(tmp_path / "b").get(encoder, plugin(VIT), arrays, BOTH, "x")
    assert [p for p in (tmp_path / "b" / "features").iterdir() if p.suffix != ".lock"] == []


def test_features_in_use_are_not_collected(arrays: Arrays, tmp_path: Path) -> None:
    encoder = build()
    found: CachedFeatures | None = FeatureCache(tmp_path).get(
        encoder, plugin(VIT), arrays, BOTH, "vit on x"
    )
    (item,) = list_entries(tmp_path)
    assert (item.label, item.in_use) == ("vit on x", True)
    assert not remove(item.folder)
    found = None
    assert found is None
    assert remove(item.folder)


def _get(root: Path, arrays_root: Path, queue: Any) -> None:
    data = make_plugin(
        "ecamp.datasets", PluginRef.parse("phantom?pretrain=4&train=24&val=8&test=9")
    )
    arrays = materialise(data, 32, splits=["train", "val", "test"], cache=arrays_root, workers=1)
    queue.put(FeatureCache(root).get(build(), plugin(VIT), arrays, BOTH, "x").origin)


@pytest.mark.slow
def test_of_two_processes_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    both = [
        context.Process(target=_get, args=(tmp_path, tmp_path, queue), daemon=True)
        for _ in range(2)
    ]
    for process in both:
        process.start()
    origins = sorted(queue.get() for _ in both)
    for process in both:
        process.join()
    assert origins == ["computed", "disk"]


def test_a_run_of_neighbours_is_taken_without_a_copy(arrays: Arrays, tmp_path: Path) -> None:
    found = FeatureCache(tmp_path).get(build(), plugin(VIT), arrays, BOTH, "x").features
    for rows in ([3, 4, 5], [5, 4, 3], [3], [3, 5], [3, 3, 4], list(range(41))):
        part = select_rows(found, np.array(rows))
        assert torch.equal(part.pooled, found.pooled[torch.tensor(rows)])
        assert torch.equal(part.pyramid[1], found.pyramid[1][torch.tensor(rows)])
        shared = (
            part.pooled.untyped_storage().data_ptr() == found.pooled.untyped_storage().data_ptr()
        )
        assert shared == (rows == sorted(set(rows)) and rows[-1] - rows[0] == len(rows) - 1)
    assert len(select_rows(found, np.zeros(0, np.int64)).pooled) == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs Linux")
def test_warm_features_are_mapped_not_read(arrays: Arrays, tmp_path: Path) -> None:
    encoder = build()
    FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x")
    found = FeatureCache(tmp_path).get(encoder, plugin(VIT), arrays, BOTH, "x")
    with open("/proc/self/smaps") as maps:
        assert str(entry(tmp_path) / "features.safetensors") in maps.read()
    assert found.features.pooled.shape[0] == len(arrays)


@pytest.mark.slow
def test_a_bench_gives_the_same_bytes_cold_warm_and_without_a_cache(
    tmp_path: Path, small_bench: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task_options: {seg: {steps: 4}, det: {steps: 4}}")
    whole = ("-c", str(recipe), "--tasks", "cls,seg,det")

    def bench(name: str, cache: str, *more: str) -> dict[str, bytes]:
        out = tmp_path / name
        args = ["--pretext", "none,mae", "--run", str(out), "--cache", str(tmp_path / cache)]
        assert run([*small_bench, *args, *more]) == 0
        files = [*out.glob("cells/*/result.json"), *out.glob("cells/*/head.safetensors")]
        return {str(f.relative_to(out)): f.read_bytes() for f in files}

    def origins(name: str) -> set[str]:
        told = [json.loads(f.read_text()) for f in (tmp_path / name).glob("cells/*/run.json")]
        return {t["features"] for t in told if "features" in t}

    cold = bench("cold", "cache", *whole)
    warm = bench("warm", "cache", *whole)
    # A cache that a bench of classification alone began: its entries are made again whole.
    bench("small", "small", "--tasks", "cls")
    grown = bench("grown", "small", *whole)
    monkeypatch.setenv("ECAMP_FEATURE_CACHE_GB", "0")
    none = bench("none", "none", *whole)
    assert origins("cold") == origins("grown") == origins("none") == {"computed", "memory"}
    assert origins("warm") == {"disk", "memory"}
    assert not (tmp_path / "none" / "features").exists()
    assert len(cold) > 12
    assert cold == warm == grown == none
