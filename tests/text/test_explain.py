"""The words of an explanation are those of the text, and its draws those of `mask_tokens`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.ops.mask_tokens import mask_tokens
from ecamp.text.explain import explain
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.tokenizer import encode_reports, train_tokenizer

TEXT = "There is no small left Pneumothorax; the Costophrenic angles are clear."
TOKENIZER = train_tokenizer([TEXT, "abcdefghijklmnopqrstuvwxyz", "no effusion, mass"], 90)
POLICY = MaskingPolicy()


def test_words_and_roles_are_those_of_the_text() -> None:
    explanation = explain(TEXT, TOKENIZER, POLICY)
    roles = {(word.text, word.role) for word in explanation.words}
    assert [word.text for word in explanation.words] == [
        "There", "is", "no", "small", "left", "Pneumothorax", ";", "the", "Costophrenic",
        "angles", "are", "clear", ".",
    ]  # fmt: skip
    assert {("There", "template"), ("no", "template"), ("left", "descriptor"),
            ("small", "descriptor"), ("Pneumothorax", "entity"), ("clear", "other")} <= roles  # fmt: skip
    assert next(word for word in explanation.words if word.text == "Costophrenic").pieces > 3
    assert [explanation.chance(role) for role in ("entity", "descriptor", "template", "other")] == [
        0.75, 1.0, 0.7, 0.7,
    ]  # fmt: skip
    assert explain("clear", TOKENIZER, POLICY).chance("other") == 0.75


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.sampled_from([TEXT, "no mass of left effusion \u4e00 no"])),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=3),
    st.integers(0, 99),
    st.integers(2, 40),
)  # fmt: skip
def test_draws_are_those_of_training(text: str, seeds: list[int], step: int, length: int) -> None:
    explanation = explain(text, TOKENIZER, POLICY, tuple(seeds), step, length)
    ids, lengths = encode_reports(TOKENIZER, [text], length)
    tables = compile_policy(POLICY, TOKENIZER)
    assert explanation.tokens == lengths[0] == 1 + sum(word.pieces for word in explanation.words)
    end = 0
    for word in explanation.words:
        assert end <= word.start <= word.end <= len(text)
        assert text[word.start : word.end] == word.text
        end = word.end
    for draw, seed in zip(explanation.draws, seeds, strict=True):
        want = mask_tokens(
            torch.from_numpy(ids), torch.from_numpy(lengths), torch.zeros(1, dtype=torch.int64),
            step, seed, tables,
        )  # fmt: skip
        index, mask, weights = 1, [False] * length, [0.0] * length
        for word, masked, weight in zip(explanation.words, draw.masked, draw.weights, strict=True):
            for piece in range(index, index + word.pieces):
                mask[piece] = masked and piece < length - 1  # the last position is never masked
                weights[piece] = weight if mask[piece] else 0.0
            index += word.pieces
        assert mask == want.mask[0].tolist()
        assert weights == want.weights[0].tolist()
        assert draw.tokens_masked == sum(mask)
        assert draw.weight_sum == pytest.approx(draw.tokens_masked)


def test_words_behind_the_window_are_cut() -> None:
    explanation = explain("clear " * 9, TOKENIZER, POLICY, (0, 1), 0, 6)
    assert {word.role for word in explanation.words[-3:]} == {"cut"}
    assert not any(any(draw.masked[-3:]) for draw in explanation.draws)
    assert explanation.tokens == 6
