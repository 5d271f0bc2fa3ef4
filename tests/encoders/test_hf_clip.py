"""A CLIP folder as an encoder: a tiny random one, written the way Hugging Face writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ecamp.encoders.hf_clip import CLIPFolder
from ecamp.errors import DataError, MissingError
from ecamp.testing.contract import check_plugin
from ecamp.testing.recipes import check_frozen

WORDS = ["effusion", "mass", "nodule", "there", "is", "no", "evidence", "of", "or", ".", ","]


def _write(folder: Path, seed: int = 0) -> CLIPModel:
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", "<bos>", "<eos>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>",
        eos_token="<eos>",
    ).save_pretrained(folder)  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    torch.manual_seed(seed)
    clip = CLIPModel(
        CLIPConfig(
            text_config={
                **sizes, "vocab_size": len(vocabulary), "num_hidden_layers": 1,
                "max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3,
                "pad_token_id": 0,
            },
            vision_config={**sizes, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8},
            projection_dim=8,
        )
    )  # fmt: skip
    clip.save_pretrained(folder)
    return clip.eval()


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CLIPModel:
    monkeypatch.setenv("ECAMP_MODELS", str(tmp_path))
    return _write(tmp_path / "tiny")


def _plugin(name: str = "tiny") -> CLIPFolder:
    return CLIPFolder(CLIPFolder.Config(), name)


def test_it_keeps_the_contract(clip: CLIPModel) -> None:
    check_plugin("ecamp.encoders", "hf-clip/tiny")


def test_both_sides_are_clips_own(clip: CLIPModel) -> None:
    encoder = _plugin().build(1)
    grey = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = ["No effusion.", "There is no evidence of mass or nodule."]
    tokens = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = clip(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
            pixel_values=grey.repeat(1, 3, 1, 1),
        )  # fmt: skip
        images, said = encoder.embed_image(encoder(grey)), encoder.embed_text(texts)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(images), expected.image_embeds)
    torch.testing.assert_close(unit(said), expected.text_embeds)
    similarity = encoder.logit_scale * unit(images) @ unit(said).T
    torch.testing.assert_close(similarity, expected.logits_per_image)


def test_long_reports_are_cut_not_refused(clip: CLIPModel) -> None:
    encoder = _plugin().build(1)
    with torch.no_grad():
        assert torch.isfinite(encoder.embed_text(["mass " * 500])).all()


def test_frozen_features_are_frozen(clip: CLIPModel) -> None:
    encoder = _plugin().build(1)
    with torch.no_grad():
        check_frozen(lambda images: encoder.eval()(images), torch.randn(3, 1, 32, 32))
    trained = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert all(name.startswith("clip.vision_model.") for name in trained)
    prefixes = tuple(prefix for group in encoder.layers() for prefix in group)
    left = {name for name in trained if not name.startswith(prefixes)}
    assert left == {
        "clip.vision_model.post_layernorm.weight",
        "clip.vision_model.post_layernorm.bias",
    }


def test_it_is_known_by_content_not_by_place(
    clip: CLIPModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _plugin().identity_fields()
    assert str(tmp_path) not in str(first)
    elsewhere = tmp_path / "elsewhere"
    _write(elsewhere / "tiny")
    monkeypatch.setenv("ECAMP_MODELS", str(elsewhere))
    assert _plugin().identity_fields() == first
    _write(elsewhere / "tiny", seed=1)
    assert _plugin().identity_fields() != first


def test_what_is_wrong_with_a_folder_is_named(
    clip: CLIPModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingError, match=r"other.config\.json: cannot be read"):
        _ = _plugin("other").image_size
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="'bert', not 'clip'"):
        _ = _plugin("other").image_size
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match="tiny: cannot be loaded"):
        _plugin().build(1)
    weights.unlink()
    with pytest.raises(DataError, match="tiny: cannot be loaded"):
        _plugin().build(1)
