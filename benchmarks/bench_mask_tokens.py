"""`mask_tokens` against the published per-report loop and two forms of vectorised torch.

    pytest benchmarks/bench_mask_tokens.py

One thread; 256 reports in windows of 256 tokens.
"""

from __future__ import annotations

import random

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.corpus import Encoded, encoded
from benchmarks.harness import measure
from benchmarks.published import published_loop
from ecamp.ops import mask_tokens as op
from ecamp.ops._ext import load_extension
from ecamp.published.pretraining.masking import Vocabulary, mask_batch


def forms_by_length(tables: op.MaskTables, role: int) -> list[Tensor]:
    """Stack the patterns of a role by their number of tokens, the longest first."""
    rows = [r[2 : 2 + r[1]] for r in tables.patterns.tolist() if r[0] == role]
    sizes = sorted({len(r) for r in rows}, reverse=True)
    return [torch.tensor([r for r in rows if len(r) == n]) for n in sizes]


def vectorised(batch: Encoded, forms: dict[int, list[Tensor]]) -> Tensor:
    """Mask as whole-batch torch: windows against forms, one draw per word.

    Simpler than the op (overlapping forms are not resolved, any word before an entity is a
    descriptor), so it does less work, not more.
    """
    ids, tables = batch.ids, batch.tables
    flags = tables.flags[ids]
    inside = torch.arange(ids.shape[1]) < batch.lengths[:, None]
    roles = inside.long() * op.OTHER
    for role in (op.ENTITY, op.TEMPLATE):
        for table in forms[role]:
            size = table.shape[1]
            windows = ids.unfold(1, size, 1)
            key = torch.isin(windows[..., 0], table[:, 0])
            index = key.nonzero()
            hits = (windows[index[:, 0], index[:, 1], None] == table).all(-1).any(-1)
            for offset in range(size):
                roles[index[hits, 0], index[hits, 1] + offset] = role
    head = (flags & op.CONTINUATION) == 0
    before = (roles[:, 1:] == op.ENTITY) & (roles[:, :-1] == op.OTHER)
    roles[:, :-1] = torch.where(before, op.DESCRIPTOR, roles[:, :-1])
    probability = torch.tensor([0.0, tables.p_other, tables.p_entity, 1.0, tables.p_other])[roles]
    word_index = head.long().cumsum(1)
    draw = torch.rand(ids.shape).gather(1, word_index.clamp(max=ids.shape[1] - 1))
    mask = (draw < probability) & inside
    strong = mask & ((roles == op.ENTITY) | (roles == op.DESCRIPTOR))
    template = mask & (roles == op.TEMPLATE)
    freed = (1 - tables.template_weight) * template.sum(1, keepdim=True)
    weight = mask.float()
    weight = torch.where(template, tables.template_weight, weight)
    weight = torch.where(strong, 1 + freed / strong.sum(1, keepdim=True).clamp(min=1), weight)
    return torch.where(mask, tables.mask_id, ids) + weight.long()


def test_mask_tokens(benchmark: BenchmarkFixture) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch = encoded()
    vocabulary = Vocabulary.of(batch.tokenizer)
    forms = {role: forms_by_length(batch.tables, role) for role in (op.ENTITY, op.TEMPLATE)}

    def native() -> object:
        return op.mask_tokens(batch.ids, batch.lengths, batch.samples, 3, 0, batch.tables)

    real = torch.arange(256) < batch.lengths[:, None]
    tokens = batch.ids[real]

    def packed() -> object:  # what a training step calls
        return op.mask_tokens(tokens, batch.lengths, batch.samples, 3, 0, batch.tables, 256)

    sources = [random.Random(i) for i in range(256)]
    baselines = {
        "published loop": lambda: published_loop(batch, 256),
        "published rules on Python lists": lambda: mask_batch(batch.ids, vocabulary, sources),
        "vectorised torch": lambda: vectorised(batch, forms),
    }
    mean_length = batch.lengths.float().mean().item()
    measure("mask_tokens 256x256", native, baselines, rounds=7, mean_length=mean_length)
    measure(
        "mask_tokens 256 packed", packed, baselines, benchmark=benchmark, rounds=7,
        mean_length=mean_length,
    )  # fmt: skip
    torch.set_num_threads(threads)
