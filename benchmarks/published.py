"""The published way of masking, for the ratios: as slow as it is there (ToniChopp/ECAMP)."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from benchmarks.corpus import Encoded
from ecamp.published.pretraining.masking import ENTITIES


def published_loop(batch: Encoded, rows: int) -> list[Tensor]:
    """Masking as the published data loader does it: one report, one token tensor, one element at a time.

    Each token is read with `.item()`, turned into its word, and searched in a list of entity words;
    roles are kept in lists of positions that are searched too (`pretrain_datasets.py`). That is what
    costs; `released.masking` computes the same with plain lists and sets.
    """
    word_of: dict[int | float, str] = {i: word for word, i in batch.tokenizer.get_vocab().items()}
    entities, out = list(ENTITIES), []
    stop, mask = batch.tokenizer.token_to_id("."), batch.tables.mask_id
    no = [batch.tokenizer.token_to_id(w) for w in ("there", "is", "no")]
    for b in range(rows):
        ids = batch.ids[b : b + 1]
        new, weights = ids.clone(), torch.ones_like(ids, dtype=torch.float32)
        last = ids.shape[1] - 1
        for i in range(last - 2):
            if ids[0][i] == no[0] and ids[0][i + 1] == no[1] and ids[0][i + 2] == no[2]:
                for k in range(3):
                    weights[0][i + k] = 0.05
        found: list[int] = []
        context: list[int] = []
        some = any(word_of[new[0][i].item()] in entities for i in range(1, last))
        for i in range(1, last):
            if new[0][i] == 0:
                break
            word = word_of[new[0][i].item()]
            if word.startswith("##"):
                if new[0][i - 1] == mask:
                    new[0][i] = mask
                continue
            if word in entities:
                found.append(i)
                for k in (i - 1, i - 2):
                    if k > 0 and ids[0][k] != stop and k not in context:
                        context.append(k)
                        new[0][k] = mask
            draw = random.random()
            if draw < (0.7 if some else 0.75) and i not in found and i not in context:
                new[0][i] = mask
        for i in range(1, last):
            if i in found and random.random() < 0.75:
                new[0][i] = mask
        for i in context:
            weights[0][i] = weights[0][i] * 2
        out.append(new)
    return out
