"""The `transformers` distiller with a tiny model made here, and with a stand-in that answers well."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ecamp.api.distiller import Report, Section
from ecamp.distill.local import Answer, LocalDistiller, LocalModel, load_model
from ecamp.errors import DataError, MissingError, UsageError
from ecamp.testing.contract import check_plugin

TEXTS = ["Small effusion.", "No pneumothorax. Heart is enlarged.", "Clear lungs. " * 12, "Opacity."]


def one(number: int, text: str) -> Report:
    return Report(str(number), text, (Section("findings", 0, len(text)),))


REPORTS = [one(number, text) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a llama of two layers with random weights, and a tokenizer of letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    # Settings that a folder may bring along, and that must not make answers random.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.save_pretrained(path)
    return path


def make(path: Path, **options: Any) -> LocalDistiller:
    values = {"path": str(path), "max_new_tokens": 24, "device": "cpu", **options}
    return LocalDistiller(LocalDistiller.Config(**values))


def test_contract(folder: Path) -> None:
    check_plugin("ecamp.distillers", f"transformers?path={folder}&max_new_tokens=8&device=cpu")


def test_random_answers_are_dropped_and_counted(folder: Path) -> None:
    distiller = make(folder)
    rows = list(distiller.distill(REPORTS))
    assert [row.id for row in rows] == ["0", "1", "2", "3"]
    assert not any(row.statements or row.error for row in rows)
    assert sum(sum(row.dropped.values()) for row in rows) > 0
    counts = distiller.counts()
    assert counts["prompts"] == 4
    assert counts["answer tokens"] > 0
    assert counts["prompt tokens"] > sum(map(len, TEXTS))


def test_random_answers_are_not_json(folder: Path) -> None:
    rows = list(make(folder, prompt="statements-1").distill(REPORTS[:2]))
    assert all(row.error.startswith(f"answer of {folder.name}: ") for row in rows)


@pytest.mark.slow
def test_answers_depend_only_on_the_report(folder: Path) -> None:
    """Whatever the order and the neighbours, the same tokens; computed in the same shapes."""

    def answers(texts: Sequence[str]) -> dict[str, Answer]:
        distiller = make(folder, batch_size=3)
        return dict(zip(texts, distiller._answers(texts), strict=True))

    alone = {text: answers([text])[text] for text in TEXTS}
    assert answers(TEXTS) == answers(TEXTS[::-1]) == alone
    assert len({answer.text for answer in alone.values()}) > 1
    assert all(answer.tokens for answer in alone.values())


def test_a_report_is_always_computed_in_the_same_shape(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels may choose another order of sums for another shape, and greedy answers may then differ."""
    shapes: dict[str, set[tuple[int, int]]] = {}

    def generate(
        self: LocalModel, prompts: Sequence[list[int]], length: int, most: int
    ) -> list[Answer]:
        for ids in prompts:
            shapes.setdefault(self.tokenizer.decode(ids), set()).add((len(prompts), length))
        return [Answer("None.", 1)] * len(prompts)

    monkeypatch.setattr(LocalModel, "generate", generate)
    for reports in (REPORTS, REPORTS[::-1], REPORTS[:1], REPORTS[1:3]):
        list(make(folder, batch_size=3).distill(reports))
    assert len(shapes) == len(REPORTS)
    assert all(len(seen) == 1 for seen in shapes.values())
    assert {count for seen in shapes.values() for count, _ in seen} == {3}


def test_greedy_as_transformers_itself(folder: Path) -> None:
    """One prompt without padding, decoded step by step with the model's own logits."""
    import torch

    model = load_model(folder, "cpu", "auto")
    ids = model.encode([{"role": "user", "content": "Report: effusion."}])
    expected, context = [], list(ids)
    with torch.inference_mode():
        for _ in range(12):
            token = int(model.model(torch.tensor([context])).logits[0, -1].argmax())
            if token == 1:
                break
            expected.append(token)
            context.append(token)
    (answer,) = model.generate([ids], len(ids) + 9, 12)
    assert answer.text == model.tokenizer.decode(expected, skip_special_tokens=True)
    assert answer.tokens == len(expected)


def test_a_good_model_is_read_as_an_endpoint_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(
        self: LocalModel, prompts: Sequence[list[int]], length: int, most: int
    ) -> list[Answer]:
        texts = [self.tokenizer.decode(ids) for ids in prompts]
        return [
            Answer("There is effusion. There may be mass." if "Small eff" in text else "None.", 5)
            for text in texts
        ]

    monkeypatch.setattr(LocalModel, "generate", generate)
    rows = list(make(folder, batch_size=2).distill(REPORTS))
    assert [(s.entity, s.polarity, s.start, s.end) for s in rows[0].statements] == [
        ("effusion", "present", 6, 14)
    ]
    assert rows[0].dropped == {"entity not in report": 1}
    assert not any(row.statements or row.dropped for row in rows[1:])


def test_a_chat_template_is_used(folder: Path) -> None:
    model = load_model(folder, "cpu", "auto")
    model.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<go>{% endif %}"
    )
    ids = model.encode([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
    assert model.tokenizer.decode(ids) == "<system>a<user>b<go>"
    model.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + model.tokenizer.chat_template
    )
    ids = model.encode([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
    assert model.tokenizer.decode(ids) == "<user>a\n\nb<go>"


def test_streams_in_order_and_sends_equal_reports_once(folder: Path) -> None:
    reports = [one(number, "Effusion.") for number in range(40)]
    distiller = make(folder, batch_size=2)
    taken = 0

    def source() -> Any:
        nonlocal taken
        for report in reports:
            taken += 1
            yield report

    iterator = distiller.distill(source())
    assert next(iterator).id == "0"
    assert taken <= 2 * 8
    assert [row.id for row in iterator] == [str(number) for number in range(1, 40)]
    assert distiller.counts()["prompts"] == 3  # one in each window of 16


def test_a_failing_source_loses_nothing(folder: Path) -> None:
    def source() -> Iterator[Report]:
        yield from REPORTS[:3]
        raise DataError("row 4: no text")

    seen: list[str] = []
    with pytest.raises(DataError, match="row 4"):
        seen.extend(row.id for row in make(folder, batch_size=1).distill(source()))
    assert seen == ["0", "1", "2"]


def test_too_long_a_report_is_an_error_row(folder: Path) -> None:
    reports = [one(0, "Effusion. " * 1000), one(1, ""), one(2, "Effusion.")]
    distiller = make(folder)
    rows = list(distiller.distill(reports))
    assert "the model takes 4072" in rows[0].error
    assert not rows[1].error
    assert not rows[2].error
    assert distiller.counts()["error: prompt too long"] == 1


def test_weights_that_can_hold_code_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"config\.json"):
        make(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(MissingError, match="safetensors"):
        make(tmp_path)


def test_no_code_of_the_folder_runs(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "unheard-of"
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match="cannot be loaded"):
        list(make(tmp_path).distill(REPORTS))
    assert not (tmp_path / "ran").exists()


def test_a_damaged_folder_is_named(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UsageError, match=str(tmp_path)):
        list(make(tmp_path).distill(REPORTS))


def test_nothing_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(list(make(folder).distill(REPORTS[:1]))) == 1


def test_the_identity_is_the_content(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert make(folder).identity_fields() == make(tmp_path).identity_fields()
    assert make(folder).identity_fields() != make(folder, max_new_tokens=25).identity_fields()
    (tmp_path / "config.json").write_text(" " + (tmp_path / "config.json").read_text())
    assert make(folder).identity_fields() != make(tmp_path).identity_fields()


def test_torch_is_imported_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    code = (
        "import sys; import ecamp.distill.local, ecamp.distill.llm\n"
        "print([m for m in ('torch', 'transformers', 'httpx2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
