"""The text side of the data path: from sample ids to masked, weighted token tensors.

    pytest benchmarks/bench_data_path.py

Published: each report is encoded anew in each epoch and masked element by element in the data
loader. Ours: encoded once, gathered and masked per batch.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.corpus import encoded, reports
from benchmarks.harness import measure
from benchmarks.published import published_loop
from ecamp.api.dataset import DatasetInfo
from ecamp.api.pretext import PretextBatch, PretextContext
from ecamp.ops._ext import load_extension
from ecamp.pretext.ecamp.config import ECAMPConfig
from ecamp.pretext.ecamp.reports import Reports
from ecamp.text.tokenizer import encode_reports

BATCH, PUBLISHED_BATCH = 256, 32


def test_text_side(benchmark: BenchmarkFixture) -> None:
    if not load_extension():
        pytest.skip("the kernels are not built here")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    texts = tuple(reports(1024))
    config = ECAMPConfig(text_length=256, vocab_size=6000)
    context = PretextContext(DatasetInfo("bench", "1"), texts, 2, tuple(map(str, range(1024))))
    source = Reports(config, context)
    published_reports = encoded(PUBLISHED_BATCH)
    no_images = torch.zeros(BATCH, 1)

    def ours(index: torch.Tensor) -> object:
        empty = no_images[: len(index)]
        return source.batch(
            PretextBatch(empty, empty, index, empty, empty, torch.Generator(), 3, 0)
        )

    def loop() -> object:
        encode_reports(published_reports.tokenizer, list(texts[:PUBLISHED_BATCH]), 256)
        return published_loop(published_reports, PUBLISHED_BATCH)

    measure(
        f"text side, {BATCH} reports",
        lambda: ours(torch.arange(BATCH)),
        {f"published loop, {PUBLISHED_BATCH} reports": loop},
        benchmark=benchmark,
        rounds=7,
        note=f"the ratio of reports/s is {BATCH // PUBLISHED_BATCH} times this ratio of times",
    )
    torch.set_num_threads(threads)
