"""Reports for benchmarks: real ones where the development data are next to the checkout, else the phantom's."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ecamp.datasets.phantom.study import describe_study
from ecamp.ops.mask_tokens import MaskTables
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.tokenizer import encode_reports, train_tokenizer

SHARED = Path(os.environ.get("ECAMP_SHARED", Path(__file__).parents[2] / "shared"))


def reports(count: int) -> list[str]:
    """Write findings and impression of `count` studies."""
    file = SHARED / "data" / "iu_reports" / "reports.csv"
    if not file.exists():
        return [describe_study(0, i).report for i in range(count)]
    with file.open(encoding="utf-8", newline="") as rows:
        texts = [f"{row['findings']} {row['impression']}".strip() for row in csv.DictReader(rows)]
    texts = [text for text in texts if text]
    return [texts[i % len(texts)] for i in range(count)]


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded reports: ids int64 (batch, L), lengths and samples int64 (batch,)."""

    ids: Tensor
    lengths: Tensor
    samples: Tensor
    tokenizer: Tokenizer
    tables: MaskTables


def encoded(count: int = 256, length: int = 256, vocabulary: int = 6000) -> Encoded:
    """Encode with a WordPiece vocabulary trained on the same kind of reports."""
    tokenizer = train_tokenizer(reports(2000), vocabulary)
    ids, lengths = encode_reports(tokenizer, reports(count), length)
    tables = compile_policy(MaskingPolicy(), tokenizer)
    return Encoded(
        torch.from_numpy(ids), torch.from_numpy(lengths), torch.arange(count), tokenizer, tables
    )
