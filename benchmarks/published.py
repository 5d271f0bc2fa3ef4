"""The published masking as a baseline, with the cost of the published code (ToniChopp/ECAMP)."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from benchmarks.corpus import Encoded
from ecamp.published.pretraining.masking import ENTITIES


def published_loop(batch: Encoded, rows: int) -> list[Tensor]:
    """Mask as the published data loader does: one report, one token tensor, one element at a time.

    Each token is read with `.item()`, turned into its word, and searched in a list of entity words;
    roles are kept in lists of positions that are searched too (`pretrain_datasets.py`). That is the
    cost; `ecamp.published.pretraining.masking` computes the same with plain lists and sets.
    """
    word_of: dict[int | float, str] = {i: word for word, i in batch.tokenizer.get_vocab().items()}
    entities, masked = list(ENTITIES), []
    stop, mask = batch.tokenizer.token_to_id("."), batch.tables.mask_id
    template = [batch.tokenizer.token_to_id(w) for w in ("there", "is", "no")]
    for b in range(rows):
        ids = batch.ids[b : b + 1]
        new_ids, weights = ids.clone(), torch.ones_like(ids, dtype=torch.float32)
        last = ids.shape[1] - 1
        for i in range(last - 2):
            if (
                ids[0][i] == template[0]
                and ids[0][i + 1] == template[1]
                and ids[0][i + 2] == template[2]
            ):
                for k in range(3):
                    weights[0][i + k] = 0.05
        entity_positions: list[int] = []
        context: list[int] = []
        has_entities = any(word_of[new_ids[0][i].item()] in entities for i in range(1, last))
        for i in range(1, last):
            if new_ids[0][i] == 0:
                break
            word = word_of[new_ids[0][i].item()]
            if word.startswith("##"):
                if new_ids[0][i - 1] == mask:
                    new_ids[0][i] = mask
                continue
            if word in entities:
                entity_positions.append(i)
                for k in (i - 1, i - 2):
                    if k > 0 and ids[0][k] != stop and k not in context:
                        context.append(k)
                        new_ids[0][k] = mask
            draw = random.random()
            if (
                draw < (0.7 if has_entities else 0.75)
                and i not in entity_positions
                and i not in context
            ):
                new_ids[0][i] = mask
        for i in range(1, last):
            if i in entity_positions and random.random() < 0.75:
                new_ids[0][i] = mask
        for i in context:
            weights[0][i] = weights[0][i] * 2
        masked.append(new_ids)
    return masked
