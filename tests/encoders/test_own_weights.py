"""Files that `ecamp pretrain` writes: known by their card, loaded under exact names, refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ecamp.api.dataset import DatasetInfo
from ecamp.api.encoder import Encoder, EncoderPlugin
from ecamp.api.plugin_ref import PluginRef
from ecamp.encoders.checkpoints import _log_once, convert, inspect, load_encoder
from ecamp.encoders.weights_card import WeightsCard, check_encoder, make_card, read_card
from ecamp.errors import DataError, MissingError, UsageError
from ecamp.plugin.host import make_plugin
from ecamp.storage.tensor_file import separate_tensors
from tests.encoders.test_hf_clip import _write

TINY = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"
INFO = DatasetInfo("phantom", "1")


def plugin(text: str = TINY) -> EncoderPlugin:
    made: EncoderPlugin = make_plugin("ecamp.encoders", PluginRef.parse(text))
    return made


def build(text: str = TINY, channels: int = 1, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return plugin(text).build(channels).eval()


def write(path: Path, text: str = TINY, channels: int = 1) -> Encoder:
    """Write a file as a pre-training does."""
    encoder = build(text, channels, seed=5)
    card = make_card(plugin(text), channels, [INFO], "mae")
    save_file(separate_tensors(encoder.state_dict()), path, card.as_metadata())
    return encoder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    write(path)
    return path


def test_the_card_is_read_as_it_was_written(weights: Path) -> None:
    card = read_card(weights)
    assert card == make_card(plugin(), 1, [INFO], "mae")
    info = inspect(weights)
    assert (info.kind, info.card, info.image_size) == ("ecamp", card, 32)
    assert str(info.geometry) == "ViT, width 32, depth 2, patch 8, image 32, channels 1"
    assert "geometry" in info.as_json()


def test_equal_weights_give_equal_bytes(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


def test_a_vit_is_resized_and_what_happened_is_logged(
    weights: Path, logged: pytest.LogCaptureFixture
) -> None:
    _log_once.cache_clear()
    text = TINY.replace("image_size=32", "image_size=48")
    report = load_encoder(build(text, 3), weights, plugin(text))
    assert report.changes == (
        "pos_embed: 4 x 4 to 6 x 6 patches, bicubic",
        "patch_embed.proj.weight: 1 to 3 input channels, grey weights shared out",
    )
    assert report.differences == ()
    (line,) = logged.messages
    assert f"{len(report.loaded)} tensors loaded, 2 of them changed (pos_embed" in line
    assert line.endswith("0 left out")
    load_encoder(build(text, 3), weights, plugin(text))
    assert len(logged.messages) == 1


def test_options_that_no_tensor_shows_are_said(
    weights: Path, logged: pytest.LogCaptureFixture
) -> None:
    _log_once.cache_clear()
    text = TINY.replace("heads=2", "heads=4")
    load_encoder(build(text), weights, plugin(text))
    assert "its encoder differs: heads 2 in the file, 4 here" in logged.text


def test_another_shape_names_tensors_and_both_encoders_and_loads_nothing(weights: Path) -> None:
    text = TINY.replace("depth=2", "depth=3")
    encoder = build(text)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(DataError) as caught:
        load_encoder(encoder, weights, plugin(text))
    said = str(caught.value)
    assert f"weights of '{plugin().ref}' (ecamp " in said
    assert f"do not fit the encoder '{plugin(text).ref}'" in said
    assert "vit.blocks.2.norm1.weight: missing in the file" in said
    assert "... and 4 more" in said
    assert all(torch.equal(before[name], v) for name, v in encoder.state_dict().items())


def test_another_encoder_is_refused_by_name_and_converted_weights_are_not(
    weights: Path, tmp_path: Path
) -> None:
    ref = "timm/vit_tiny_patch16_224?image_size=32"
    with pytest.raises(UsageError, match="weights of encoder 'vit-micro"):
        check_encoder(weights, read_card(weights), plugin(ref))
    convert(weights, tmp_path / "plain.safetensors")
    assert read_card(tmp_path / "plain.safetensors") is None
    again = build()
    load_encoder(again, tmp_path / "plain.safetensors")
    assert torch.equal(
        again.get_parameter("vit.norm.bias"), build(seed=5).get_parameter("vit.norm.bias")
    )


def test_a_cnn_of_other_channels_names_them(tmp_path: Path) -> None:
    path, text = tmp_path / "cnn.safetensors", "timm/resnet18?image_size=32"
    trained = write(path, text, channels=3)
    with pytest.raises(DataError, match="for 3 input channels, the images have 1"):
        load_encoder(build(text, 1), path, plugin(text))
    again = build(text, 3)
    load_encoder(again, path, plugin(text))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images).pooled, trained(images).pooled)
    assert inspect(path).geometry is None


def test_a_dual_encoder_keeps_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECAMP_MODELS", str(tmp_path))
    _write(tmp_path / "tiny")
    text, path = "hf-clip/tiny", tmp_path / "clip.safetensors"
    trained = build(text)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.01
    card = make_card(plugin(text), 1, [INFO], "contrast")
    save_file(separate_tensors(trained.state_dict()), path, card.as_metadata())
    assert str(tmp_path) not in json.dumps(inspect(path).as_json())
    again = build(text)
    report = load_encoder(again, path, plugin(text))
    assert len(report.loaded) == len(trained.state_dict())
    with torch.no_grad():
        for side in ("effusion", "mass"):
            assert torch.equal(again.embed_text([side]), trained.embed_text([side]))  # type: ignore[operator]


def test_tied_weights_are_stored_once_per_name() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2)})
    module["b"] = module["a"]
    state = separate_tensors(module.state_dict())
    assert set(state) == set(module.state_dict())
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_files_without_a_card_are_for_vits(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file(build().state_dict(), path)
    check_encoder(path, read_card(path), plugin())
    load_encoder(build(), path, plugin())
    with pytest.raises(UsageError, match="was not written by ecamp"):
        check_encoder(path, read_card(path), plugin("timm/resnet18?image_size=32"))


def _with_card(path: Path, text: str) -> None:
    save_file(build().state_dict(), path, {"ecamp": text})


def test_a_newer_or_damaged_card_is_named(weights: Path) -> None:
    card = read_card(weights)
    assert card is not None
    newer = WeightsCard(**{**vars(card), "format": 99}).as_metadata()["ecamp"]
    for text, message in ((newer, "newer ecamp"), ("{}", "metadata 'ecamp'"), ("[", "damaged")):
        _with_card(weights, text)
        with pytest.raises(DataError, match=message) as caught:
            inspect(weights)
        assert str(weights) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.pth", None, MissingError, "no such weights file"),
        ("folder", "folder", MissingError, "is a folder"),
        ("weights.pth", "safetensors", DataError, "Rename it to weights.safetensors"),
        ("weights.safetensors", "torch", DataError, "Rename it to weights.pth"),
        ("weights.pth", "pickle", DataError, "pickle; opening it would run its code"),
        ("weights.pkl", "pickle", DataError, "save_file"),
        ("weights.pth", "cut torch", DataError, "damaged"),
        ("weights.safetensors", "cut safetensors", DataError, "damaged"),
        ("weights.onnx", "text", DataError, "what torch.save wrote"),
        ("weights.pth", "", DataError, "is empty"),
    ],
)
def test_files_that_are_not_weights_are_named_with_the_next_thing_to_do(
    weights: Path, tmp_path: Path, name: str, content: str | None, error: type, message: str
) -> None:
    path = tmp_path / "other" / name
    path.parent.mkdir()
    stored = weights.read_bytes()
    if content == "folder":
        path.mkdir()
    elif content in ("torch", "cut torch"):
        torch.save(build().state_dict(), path)
        if content == "cut torch":
            path.write_bytes(path.read_bytes()[:-2000])
    elif content == "pickle":
        path.write_bytes(pickle.dumps({"norm.weight": [1.0]}))
    elif content is not None:
        kinds = {"safetensors": stored, "cut safetensors": stored[:-100], "text": b"onnx" * 9}
        path.write_bytes(kinds.get(content, b""))
    for call in (inspect, lambda file: load_encoder(build(), file, plugin())):
        with pytest.raises(error, match=message) as caught:
            call(path)
        assert str(path) in str(caught.value)
        assert caught.value.hint
