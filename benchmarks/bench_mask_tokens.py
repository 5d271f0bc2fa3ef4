"""`mask_tokens` against the published way of masking and against a batched NumPy version.

    pytest benchmarks --benchmark-json=out.json

Times on a shared machine mean little; what is recorded and gated is the ratio, each side's best of
rounds that take turns in one process on one thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tokenizers import Tokenizer

from ecamp.datasets.phantom.study import describe_study
from ecamp.ops import mask_tokens as op
from ecamp.ops._ext import load_extension
from ecamp.text.policy import MaskingPolicy, compile_policy, load_lexicon
from ecamp.text.tokenizer import encode_reports, train_tokenizer

BATCH, LENGTH, ROUNDS = 256, 96, 5
GATES = {"published loop": 300.0, "batched NumPy": 10.0}


def published_loop(
    ids: list[list[int]], tokenizer: Tokenizer, forms: list[list[str]], templates: list[list[str]]
) -> list[list[int]]:
    """The published steps, one report at a time: find forms among the words, draw, re-balance.

    METHOD: words are rebuilt from pieces, every surface form is searched in every report, each
    word is drawn with Python's `random`, weights are set in a second pass.
    """
    out = []
    for row in ids:
        words: list[list[int]] = []
        for place, token in enumerate(row):
            piece = tokenizer.id_to_token(token)
            if piece in ("[PAD]", "[CLS]"):
                continue
            if piece.startswith("##") and words:
                words[-1].append(place)
            else:
                words.append([place])
        texts = [
            "".join(tokenizer.id_to_token(row[p]).removeprefix("##") for p in w) for w in words
        ]
        roles = [0] * len(words)
        for role, group in ((2, templates), (1, forms)):
            for form in group:
                for at in range(len(texts) - len(form) + 1):
                    if texts[at : at + len(form)] == form:
                        roles[at : at + len(form)] = [role] * len(form)
        masked = [random.random() < (0.75 if role else 0.7) for role in roles]
        new = list(row)
        for word, hit in zip(words, masked, strict=True):
            if hit:
                for place in word:
                    new[place] = 3
        strong = sum(m for m, r in zip(masked, roles, strict=True) if r == 1)
        other = max(1, sum(masked) - strong)
        weights = [0.0] * len(row)
        for word, hit, role in zip(words, masked, roles, strict=True):
            for place in word:
                weights[place] = hit * (1.0 if role != 1 else other / max(1, strong))
        out.append(new)
    return out


def best_times(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Best seconds of each side, taking turns."""
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(ROUNDS):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def test_mask_tokens(benchmark: BenchmarkFixture) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    torch.set_num_threads(1)
    reports = [describe_study(0, i).report for i in range(BATCH)]
    tokenizer = train_tokenizer(reports, 2000)
    array, count = encode_reports(tokenizer, reports, LENGTH)
    ids, lengths = torch.from_numpy(array), torch.from_numpy(count)
    sample = torch.arange(BATCH)
    tables = compile_policy(MaskingPolicy(), tokenizer)
    lexicon = load_lexicon("chest")
    forms = [form.split() for group in lexicon.entities.values() for form in group]
    templates = [text.split() for text in lexicon.templates]
    rows = ids.tolist()

    def native() -> op.MaskedTokens:
        return op.mask_tokens(ids, lengths, sample, 3, 0, tables)

    def reference() -> object:
        return op._reference(
            ids, lengths, sample, 3, 0, tables.flags, tables.patterns, tables.pattern_start,
            tables.mask_id, op.threshold(tables.p_entity), op.threshold(tables.p_other),
            op.threshold(tables.p_plain), tables.descriptor_words, tables.template_weight,
        )  # fmt: skip

    best = best_times(
        {
            "native": native,
            "batched NumPy": reference,
            "published loop": lambda: published_loop(rows, tokenizer, forms, templates),
        }
    )
    ratios = {name: best[name] / best["native"] for name in GATES}
    benchmark.extra_info["ratios"] = {name: round(ratio, 1) for name, ratio in ratios.items()}
    benchmark.extra_info["native_seconds"] = best["native"]
    benchmark.pedantic(native, rounds=20)
    for name, gate in GATES.items():
        assert ratios[name] >= gate, f"{name}: {ratios[name]:.0f}x, gate {gate:.0f}x"
