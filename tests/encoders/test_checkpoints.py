"""Published checkpoints in, plain timm weights out; damaged and hostile files refused."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ecamp.api.encoder import Encoder
from ecamp.api.plugin_ref import PluginRef
from ecamp.encoders.checkpoints import (
    change_channels,
    convert,
    export,
    inspect,
    load_encoder,
)
from ecamp.encoders.position import resize_table
from ecamp.errors import DataError, MissingError, UsageError
from ecamp.plugin.host import make_plugin

WIDTH, DEPTH = 32, 2
TINY = f"vit-micro?width={WIDTH}&depth={DEPTH}&heads=2&image_size=32&patch_size=8"
# Other content of each published file in addition to the encoder, scaled down.
EXTRA = {
    "ViT": {"head.weight": (3, WIDTH)},
    "MAE": {"mask_token": (1, 1, 16), "decoder_embed.weight": (16, WIDTH)},
    "MRM": {"mask_token": (1, 1, 16), "decoder_embed.weight": (16, WIDTH),
            "bert_mlp.weight": (24, WIDTH), "bert_encoder.model.cls.predictions.bias": (9,)},
    "ECAMP": {"mask_token": (1, 1, 16), "bert_mlp.weight": (24, WIDTH),
              "super_res.conv1.weight": (3, 3, 3, 3),
              "bert_encoder.model.bert.context_fusion_layer.gap_mlp.bias": (24,)},
}  # fmt: skip


def build(text: str = TINY, channels: int = 3, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    encoder: Encoder = make_plugin("ecamp.encoders", PluginRef.parse(text)).build(channels)
    return encoder.eval()


def published(kind: str, prefix: str = "") -> dict[str, Tensor]:
    """A state dict of that family around the tiny ViT."""
    torch.manual_seed(7)
    vit = build(seed=7).get_submodule("vit").state_dict()
    vit["pos_embed"] = torch.randn_like(vit["pos_embed"])
    state = {prefix + name: tensor for name, tensor in vit.items()}
    return state | {prefix + name: torch.randn(shape) for name, shape in EXTRA[kind].items()}


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "vit.", "module.encoder."])
def test_every_family_loads_under_every_prefix(tmp_path: Path, kind: str, prefix: str) -> None:
    state, path = published(kind, prefix), tmp_path / "checkpoint.pth"
    torch.save(
        {"model": state, "optimizer": {"state": {}}, "epoch": 3,
         "args": argparse.Namespace(lr=1e-4, model="x")},
        path,
    )  # fmt: skip
    info, encoder = inspect(path), build()
    assert (info.kind, info.prefix) == (kind, prefix)
    assert info.parameters == sum(tensor.numel() for tensor in state.values())
    assert sum(info.ignored.values()) == len(EXTRA[kind])
    assert str(info.geometry) == "ViT, width 32, depth 2, patch 8, image 32, channels 3"
    report = load_encoder(encoder, path)
    own = encoder.get_submodule("vit").state_dict()
    assert set(report.loaded) == set(own)
    assert report.changes == ()
    assert all(torch.equal(own[name], state[prefix + name]) for name in own)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
def test_a_plain_state_dict_loads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(published("MAE"), path)
    assert inspect(path).kind == "MAE"


@pytest.mark.real
def test_the_published_names_are_recognised(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data.parent / "golden" / "dev" / "checkpoint_keys.json"
    if not file.exists():
        pytest.skip("the golden vectors are not on this machine")
    rows = json.loads(file.read_text())["ECAMP_vit_base"]["state_dict"]
    # Real names and shapes without their 700 MB: every tensor is one zero seen many times.
    state = {name: torch.zeros(()).expand(shape) for name, shape, _ in rows}
    torch.save({"model": state, "args": argparse.Namespace()}, tmp_path / "ecamp.pth")
    info = inspect(tmp_path / "ecamp.pth")
    assert info.kind == "ECAMP"
    assert str(info.geometry) == "ViT, width 768, depth 12, patch 16, image 224, channels 3"
    assert len(info.taken) == 150
    assert info.taken_parameters == 85_798_656  # ViT-B/16 without head


def test_positions_are_resized_as_published(shared_data: Path) -> None:
    file = shared_data.parent / "golden" / "dev" / "posembed.npz"
    if not file.exists():
        pytest.skip("the golden vectors are not on this machine")
    with np.load(file) as vectors:
        before, after = (torch.from_numpy(vectors[f"interpolate/{n}"]) for n in ("in", "out"))
    side = round((after.shape[1] - 1) ** 0.5)
    torch.testing.assert_close(resize_table(before, side, side), after, rtol=0, atol=1e-6)


def test_another_size_and_grey_images_are_made_to_fit_and_said(tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    torch.save({"model": published("MAE")}, path)
    grey = build(TINY.replace("image_size=32", "image_size=48"), channels=1)
    report = load_encoder(grey, path)
    assert report.changes == (
        "pos_embed: 4 x 4 to 6 x 6 patches, bicubic",
        "patch_embed.proj.weight: 3 to 1 input channels, summed",
    )
    colour = build(TINY.replace("image_size=32", "image_size=48"))
    load_encoder(colour, path)
    images = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        ours, theirs = grey(images).pooled, colour(images.expand(-1, 3, -1, -1)).pooled
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_changes_keep_the_answer_on_grey(channels: int) -> None:
    kernel, images = torch.randn(8, 4 - channels, 4, 4), torch.randn(2, 1, 8, 8)
    changed = change_channels(kernel, channels)
    assert changed.shape[1] == channels
    outputs = [
        torch.nn.functional.conv2d(images.expand(-1, k.shape[1], -1, -1), k, stride=4)
        for k in (kernel, changed)
    ]
    torch.testing.assert_close(*outputs)


def test_wrong_shapes_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    torch.save({"model": published("MAE")}, path)
    encoder = build(TINY.replace("width=32", "width=48"))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(DataError) as caught:
        load_encoder(encoder, path)
    assert "cls_token: file (1, 1, 32), encoder (1, 1, 48)" in str(caught.value)
    assert "blocks.0.attn.qkv.weight: file (96, 32), encoder (144, 48)" in str(caught.value)
    assert "width 32, depth 2, patch 8" in str(caught.value)
    assert all(torch.equal(before[name], v) for name, v in encoder.state_dict().items())


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    state, path = published("MAE"), tmp_path / "mae.safetensors"
    del state["norm.bias"]
    state["blocks.0.ls1.gamma"] = torch.ones(WIDTH)
    save_file(state, path)
    with pytest.raises(DataError) as caught:
        load_encoder(build(), path)
    assert "norm.bias: missing in the file" in str(caught.value)
    assert "blocks.0.ls1.gamma: unknown to the encoder" in str(caught.value)


class Hostile:
    """Would run a command when unpickled."""

    def __reduce__(self) -> tuple:
        return (print, ("code of the file ran",))


def test_a_foreign_class_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"model": published("MAE"), "extra": Hostile()}, path)
    with pytest.raises(DataError, match=r"bad\.pth: holds an object of class .*print"):
        inspect(path)
    assert "code of the file ran" not in capsys.readouterr().out


def damaged(path: Path, kind: str) -> None:
    if kind == "cut":
        torch.save(published("MAE"), path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps([1, 2]))
    elif kind == "number":
        torch.save(3, path)
    elif kind == "no tensors":
        torch.save({"epoch": 3, "model": {"a": 1}}, path)
    else:
        torch.save({"conv1.weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    "kind", ["cut", "text", "empty", "pickle", "number", "no tensors", "no vit"]
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"file.{suffix}"
    damaged(path, kind)
    with pytest.raises(DataError, match=str(path)):
        inspect(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.pth"):
        inspect(tmp_path / "none.pth")


def test_a_table_that_is_not_square_is_named(tmp_path: Path) -> None:
    state = published("MAE")
    state["pos_embed"] = torch.zeros(1, 12, WIDTH)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match=r"pos_embed \(1, 12, 32\)"):
        inspect(tmp_path / "x.safetensors")


def test_an_exported_encoder_is_timms_own_to_the_bit(tmp_path: Path) -> None:
    name, options = "vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}
    plugin = PluginRef(name="timm", variant=name, options={"image_size": 64, "options": options})
    torch.manual_seed(0)
    encoder: Encoder = make_plugin("ecamp.encoders", plugin).build(3).eval()
    beside = export(encoder, tmp_path / "out.safetensors", {"source": {"file": "x"}})
    model = timm.create_model(name, num_classes=0, img_size=64, **options)
    model.load_state_dict(load_file(tmp_path / "out.safetensors"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs = model.eval().forward_features(images)[:, 1:]
        assert torch.equal(encoder(images).tokens, theirs)
    card = json.loads(beside.read_text())
    assert card["format"] == 1
    assert card["source"] == {"file": "x"}
    assert card["geometry"]["image_size"] == 64
    again = make_plugin("ecamp.encoders", plugin).build(3).eval()
    load_encoder(again, tmp_path / "out.safetensors")
    with torch.no_grad():
        assert torch.equal(again(images).pooled, encoder(images).pooled)


def test_convert_resizes_and_keeps_the_rest(tmp_path: Path) -> None:
    source, out = tmp_path / "ecamp.pth", tmp_path / "out.safetensors"
    state = published("ECAMP")
    torch.save({"model": state}, source)
    beside, changes = convert(source, out, image_size=48, channels=1)
    made, card = load_file(out), json.loads(beside.read_text())
    assert len(changes) == 2
    assert made["pos_embed"].shape == (1, 37, WIDTH)
    assert torch.equal(made["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])
    assert torch.equal(made["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert card["source"]["sha256"] == inspect(source).sha256
    assert card["normalisation"]["mean"] == [0.4721]
    assert str(tmp_path) not in beside.read_text()
    with pytest.raises(UsageError, match="not a multiple"):
        convert(source, out, image_size=50)
    with pytest.raises(UsageError, match="safetensors"):
        convert(source, tmp_path / "out.pth")


def test_a_cnn_is_refused(tmp_path: Path) -> None:
    torch.save({"model": published("MAE")}, tmp_path / "mae.pth")
    with pytest.raises(UsageError, match="not a ViT"):
        load_encoder(build("timm/resnet18?image_size=64"), tmp_path / "mae.pth")
