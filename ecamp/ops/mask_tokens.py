"""`mask_tokens`: entity-aware masking with re-balanced loss weights, for a whole batch.

Rules: arXiv 2312.13316, section 3.2. A word (a head piece and its `##` pieces)
is masked as a whole or not at all.

Roles. Templates are matched first, then entities; at each word the longest form wins, a match
covers whole words and never crosses another. Up to `descriptor_words` words to the left of an
entity are its descriptors; the walk stops at a boundary token, a template, an entity, a special
token, or the start. [CLS], padding and special tokens have no role.

Masking. Descriptors always; entity words with `p_entity`; all other words, template words
included, with `p_other`, or with `p_plain` when the text holds no entity. The first position and
the last of the window (L - 1) are never masked; of a word that reaches L - 1 the other pieces are.

Weights, on masked positions (0 elsewhere). With T masked template tokens of weight w: each gets
w; the freed T * (1 - w) goes in equal parts to masked entity and descriptor tokens or, if there
are none, to the other masked tokens; if only template tokens are masked all weigh 1. So the
weights sum to the number of masked tokens, and loss = sum(w * CE) / sum(w).

Random numbers. Philox4x32-10 with counter (position of the head, sample id, step, OP) and the
seed as key; a word is masked when word 0 < round(p * 2**32). So a mask depends on (seed, step,
sample id, position) alone, not on batch, padding, order or device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define
from ecamp.ops.philox import philox

OP = 1  # last word of the counter; insert_text has 2
CONTINUATION, SPECIAL, BOUNDARY = 1, 2, 4  # bits of `flags`
NO_ROLE, OTHER, ENTITY, DESCRIPTOR, TEMPLATE = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class MaskTables:
    """A policy compiled against one tokenizer.

    Attributes:
        flags: uint8 (vocabulary,) bits CONTINUATION, SPECIAL, BOUNDARY.
        patterns: int32 (P, 2 + longest): role (ENTITY or TEMPLATE), length, tokens, -1 fill;
            sorted by first token, the longest first.
        pattern_start: int32 (vocabulary + 1,): rows of `patterns` that start with a token.
    """

    flags: Tensor
    patterns: Tensor
    pattern_start: Tensor
    mask_id: int
    p_entity: float
    p_other: float
    p_plain: float
    descriptor_words: int
    template_weight: float


@dataclass(frozen=True)
class MaskedTokens:
    """Result, all (batch, L).

    Attributes:
        ids: int64, [MASK] where masked.
        mask: bool, the positions to predict.
        weights: float32, 0 where not masked.
        roles: uint8, one of NO_ROLE, OTHER, ENTITY, DESCRIPTOR, TEMPLATE.
    """

    ids: Tensor
    mask: Tensor
    weights: Tensor
    roles: Tensor


def threshold(p: float) -> int:
    """Compute round(p * 2**32): a word is masked when its 32-bit draw is below."""
    return int(np.rint(np.float64(p) * 2.0**32))


def mask_tokens(
    ids: Tensor, lengths: Tensor, sample_ids: Tensor, step: int, seed: int, tables: MaskTables,
    window: int | None = None,
) -> MaskedTokens:  # fmt: skip
    """Mask a batch of encoded reports.

    Args:
        ids: int64 (batch, L), [CLS] first, padded; or packed, int64 (sum of lengths,), the reports
            one after another without padding.
        lengths: int64 (batch,), real tokens with [CLS]; 0 .. L.
        sample_ids: int64 (batch,), each sample's number in its data set.
        step, seed: Non-negative.
        window: For packed ids: L, the length at which reports were cut. The last position of it
            is never masked.

    Returns:
        Fields in the shape of `ids`; packed fields hold the same values as padded ones.

    Raises:
        ValueError: Wrong shape, dtype or device; a length or token outside its range.
    """
    _check(ids, lengths, sample_ids, tables, window)
    load_extension()
    starts = None if ids.dim() == 2 else lengths.cumsum(0) - lengths
    out = torch.ops.ecamp.mask_tokens(
        ids.contiguous(), starts, ids.shape[1] if window is None else window,
        lengths.contiguous(), sample_ids.contiguous(), step, seed,
        tables.flags, tables.patterns, tables.pattern_start, tables.mask_id,
        threshold(tables.p_entity), threshold(tables.p_other), threshold(tables.p_plain),
        tables.descriptor_words, tables.template_weight,
    )  # fmt: skip
    return MaskedTokens(*out)


def _check(
    ids: Tensor, lengths: Tensor, sample_ids: Tensor, tables: MaskTables, window: int | None
) -> None:
    expected = "(batch, L)" if window is None else "(sum of lengths,) with a window"
    if ids.dim() != (2 if window is None else 1) or ids.dtype != torch.int64:
        raise ValueError(
            f"mask_tokens: ids must be int64 {expected}, got {ids.dtype} {tuple(ids.shape)}"
        )
    rows = len(ids) if window is None else lengths.numel()
    for name, tensor in (("lengths", lengths), ("sample_ids", sample_ids)):
        if tensor.shape != (rows,) or tensor.dtype != torch.int64:
            raise ValueError(
                f"mask_tokens: {name} must be int64 ({rows},), got {tensor.dtype} {tuple(tensor.shape)}"
            )
    devices = {t.device for t in (ids, lengths, sample_ids, tables.flags, tables.patterns)}
    if len(devices) > 1:
        raise ValueError(
            f"mask_tokens: tensors lie on {sorted(map(str, devices))}; move them together"
        )


def _reference(
    ids: Tensor, starts: Tensor | None, window: int, lengths: Tensor, sample_ids: Tensor,
    step: int, seed: int, flags: Tensor, patterns: Tensor, pattern_start: Tensor, mask_id: int,
    t_entity: int, t_other: int, t_plain: int, descriptor_words: int, template_weight: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Apply the rules above in numpy; every kernel equals it bit for bit."""
    length = lengths.cpu().numpy()
    tokens, batch = ids.cpu().numpy(), len(length)
    if starts is not None:  # computed as a padded rectangle, packed again at the end
        _check_rows(starts.cpu().numpy(), length, window, len(tokens))
        real = np.arange(window) < length[:, None]
        packed, tokens = tokens, np.zeros((batch, window), np.int64)
        tokens[real] = packed
    flag, table = flags.cpu().numpy(), patterns.cpu().numpy()
    start = pattern_start.cpu().numpy()
    _check_values(tokens, length, len(flag), window)
    roles = np.zeros((batch, window), np.uint8)
    mask = np.zeros((batch, window), bool)
    weights = np.zeros((batch, window), np.float32)
    draws = _draws(sample_ids.cpu().numpy(), window, step, seed)
    for b in range(batch):
        row = tokens[b, : length[b]]
        heads = _roles(row, roles[b], flag, table, start, descriptor_words)
        rest = t_other if (roles[b] == ENTITY).any() else t_plain
        limit = np.array([0, rest, t_entity, 2**32, rest], np.uint64)
        hit = draws[b, heads] < limit[roles[b, heads]]
        if len(heads):
            mask[b, 1 : len(row)] = np.repeat(hit, np.diff(np.append(heads, len(row))))
        mask[b, : len(row)] &= roles[b, : len(row)] != NO_ROLE
        if window:
            mask[b, 0] = mask[b, window - 1] = False
        weights[b] = _weights(mask[b], roles[b], template_weight)
    masked = np.where(mask, mask_id, tokens)
    arrays = (masked, mask, weights, roles)
    if starts is not None:
        arrays = (masked[real], mask[real], weights[real], roles[real])
    out = [torch.from_numpy(np.ascontiguousarray(array)).to(ids.device) for array in arrays]
    return out[0], out[1], out[2], out[3]


def _check_values(tokens: np.ndarray, length: np.ndarray, vocabulary: int, window: int) -> None:
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocabulary):
        raise ValueError(f"mask_tokens: a token id lies outside 0..{vocabulary - 1}")
    if length.size and (length.min() < 0 or length.max() > window):
        raise ValueError(f"mask_tokens: a length lies outside 0..{window}")


def _check_rows(starts: np.ndarray, length: np.ndarray, window: int, size: int) -> None:
    if length.size and (length.min() < 0 or length.max() > window):
        raise ValueError(f"mask_tokens: a length lies outside 0..{window}")
    if length.sum() != size or (starts != length.cumsum() - length).any():
        raise ValueError(f"mask_tokens: lengths sum to {length.sum()}, but there are {size} ids")


def _draws(sample_ids: np.ndarray, window: int, step: int, seed: int) -> np.ndarray:
    counter = np.zeros((len(sample_ids), window, 4), np.uint32)
    counter[..., 0] = np.arange(window, dtype=np.uint32)
    counter[..., 1] = (sample_ids & 0xFFFFFFFF).astype(np.uint32)[:, None]
    counter[..., 2] = step & 0xFFFFFFFF
    counter[..., 3] = OP
    return philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))[..., 0].astype(np.uint64)


def _roles(
    row: np.ndarray, roles: np.ndarray, flag: np.ndarray, table: np.ndarray, start: np.ndarray,
    descriptor_words: int,
) -> np.ndarray:  # fmt: skip
    """Fill `roles` of one row; return the positions of word heads from 1 on."""
    if len(row) < 2:
        return np.zeros(0, np.int64)
    flags = flag[row]
    plain = (flags & SPECIAL) == 0
    plain[0] = False
    roles[: len(row)][plain] = OTHER
    head = (flags & CONTINUATION) == 0
    head[:2] = [False, True]  # a cut can leave a `##` piece first: it represents its word
    heads = np.flatnonzero(head)
    for role in (TEMPLATE, ENTITY):
        free_from = 0
        for p in heads[start[row[heads] + 1] > start[row[heads]]]:
            if p < free_from:
                continue
            n = _match(row, p, role, head, roles, table, start)
            if n:
                roles[p : p + n] = role
                free_from = p + n
    entity_starts = [p for p in heads if roles[p] == ENTITY and roles[p - 1] != ENTITY]
    for p in entity_starts:
        end, words = p, 0
        while words < descriptor_words and end > 1:
            previous = end - 1
            while previous > 1 and not head[previous]:
                previous -= 1
            if roles[previous] != OTHER or flags[previous] & BOUNDARY:
                break
            roles[previous:end] = DESCRIPTOR
            end, words = previous, words + 1
    return heads


def _match(
    row: np.ndarray, p: int, role: int, head: np.ndarray, roles: np.ndarray, table: np.ndarray,
    start: np.ndarray,
) -> int:  # fmt: skip
    """Return the length of the longest pattern of a role at p over whole free words; 0 for none."""
    for pattern in table[start[row[p]] : start[row[p] + 1]]:
        n = int(pattern[1])
        if pattern[0] != role or p + n > len(row):
            continue
        if p + n < len(row) and not head[p + n]:
            continue
        if (row[p : p + n] == pattern[2 : 2 + n]).all() and (roles[p : p + n] == OTHER).all():
            return n
    return 0


def _weights(mask: np.ndarray, roles: np.ndarray, template_weight: float) -> np.ndarray:
    """Compute the weights of one row; the two divisions are in float64, then rounded once."""
    templates = int((mask & (roles == TEMPLATE)).sum())
    strong = mask & ((roles == ENTITY) | (roles == DESCRIPTOR))
    other = mask & (roles == OTHER)
    weights = mask.astype(np.float32)
    boosted = strong if strong.any() else other
    if templates and boosted.any():
        freed = (1.0 - template_weight) * templates
        weights[mask & (roles == TEMPLATE)] = np.float32(template_weight)
        weights[boosted] = np.float32(1.0 + freed / int(boosted.sum()))
    return weights


def _fake(ids: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(ids),
        torch.empty_like(ids, dtype=torch.bool),
        torch.empty_like(ids, dtype=torch.float32),
        torch.empty_like(ids, dtype=torch.uint8),
    )


define(
    "mask_tokens(Tensor ids, Tensor? starts, SymInt window, Tensor lengths, Tensor sample_ids,"
    " SymInt step, SymInt seed, Tensor flags, Tensor patterns, Tensor pattern_start, int mask_id,"
    " int t_entity, int t_other, int t_plain, int descriptor_words, float template_weight)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _reference,
    _fake,
)
