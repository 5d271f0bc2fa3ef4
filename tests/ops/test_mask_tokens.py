"""`mask_tokens`: an oracle written from the rules, the numpy reference, and the compiled kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.ops import mask_tokens as op
from ecamp.ops.philox import philox
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.tokenizer import encode_reports, train_tokenizer
from tests.ops.checks import lane, native, philox_plain

ROOT = Path(__file__).parents[2]


def test_philox_known_answers() -> None:
    zero = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    full = 2**32 - 1
    for counter, key, want in (([0] * 4, [0] * 2, zero), ([full] * 4, [full] * 2, ones)):
        assert philox_plain(counter, key) == want
        got = philox(np.array([counter], np.uint32), (key[0], key[1]))[0].tolist()
        assert got == want


def oracle(ids: list[int], n: int, sample: int, step: int, seed: int, tables: op.MaskTables):
    """The rules of the module's docstring, word by word, with Python objects."""
    window = len(ids)
    flags = tables.flags.tolist()
    # Words: lists of positions; position 0 ([CLS]) belongs to none.
    words: list[list[int]] = []
    for i in range(1, n):
        if i > 1 and flags[ids[i]] & op.CONTINUATION:
            words[-1].append(i)
        else:
            words.append([i])
    role = {i: op.OTHER for i in range(1, n) if not flags[ids[i]] & op.SPECIAL}
    patterns = [(row[0], tuple(row[2 : 2 + row[1]])) for row in tables.patterns.tolist()]
    for kind in (op.TEMPLATE, op.ENTITY):
        w = 0
        while w < len(words):
            best = 0
            for end in range(len(words), w, -1):  # the longest first
                span = [i for word in words[w:end] for i in word]
                free = all(role.get(i) == op.OTHER for i in span)
                if free and (kind, tuple(ids[i] for i in span)) in patterns:
                    best = end - w
                    for i in span:
                        role[i] = kind
                    break
            w += max(1, best)
    starts = [
        w for w, word in enumerate(words)
        if role.get(word[0]) == op.ENTITY
        and (w == 0 or role.get(words[w - 1][-1]) != op.ENTITY)
    ]  # fmt: skip
    for start in starts:
        for w in range(start - 1, max(-1, start - 1 - tables.descriptor_words), -1):
            first = words[w][0]
            if role.get(first) != op.OTHER or flags[ids[first]] & op.BOUNDARY:
                break
            for i in words[w]:
                role[i] = op.DESCRIPTOR
    has_entity = op.ENTITY in role.values()
    rest = tables.p_other if has_entity else tables.p_plain
    chance = {op.OTHER: rest, op.TEMPLATE: rest, op.ENTITY: tables.p_entity, op.DESCRIPTOR: 1.0}
    masked = set()
    for word in words:
        key = [seed % 2**32, seed >> 32]
        draw = philox_plain([word[0], sample % 2**32, step % 2**32, 1], key)[0]
        if word[0] in role and draw < round(chance[role[word[0]]] * 2**32):
            masked |= {i for i in word if i in role and 0 < i < window - 1}
    templates = [i for i in masked if role[i] == op.TEMPLATE]
    strong = [i for i in masked if role[i] in (op.ENTITY, op.DESCRIPTOR)]
    boosted = strong or [i for i in masked if role[i] == op.OTHER]
    weight = dict.fromkeys(masked, 1.0)
    if templates and boosted:
        for i in templates:
            weight[i] = tables.template_weight
        for i in boosted:
            weight[i] = 1 + len(templates) * (1 - tables.template_weight) / len(boosted)
    out = [tables.mask_id if i in masked else ids[i] for i in range(window)]
    return (
        out,
        [i in masked for i in range(window)],
        [float(np.float32(weight.get(i, 0.0))) for i in range(window)],
        [role.get(i, op.NO_ROLE) for i in range(window)],
    )


VOCABULARY = 12  # 0 pad, 1 [MASK], 2 [CLS] (special), 3 "." (boundary), 4-7 words, 8-11 pieces


@st.composite
def cases(draw: st.DrawFn):
    """Small vocabularies make matches, overlaps and cuts frequent."""
    flags = [op.SPECIAL] * 3 + [op.BOUNDARY] + [0] * 4 + [op.CONTINUATION] * 4
    word = st.tuples(st.integers(3, 7), st.lists(st.integers(8, 11), max_size=2))
    phrase = st.lists(word, min_size=1, max_size=3).map(
        lambda words: tuple(t for head, rest in words for t in (head, *rest))
    )
    kinds = st.sampled_from([op.ENTITY, op.TEMPLATE])
    forms = draw(st.sets(st.tuples(kinds, phrase), max_size=6))
    ordered = sorted(forms, key=lambda f: (f[1][0], -len(f[1]), f))
    longest = max((len(tokens) for _, tokens in ordered), default=1)
    table = np.full((len(ordered), 2 + longest), -1, np.int32)
    start = np.zeros(VOCABULARY + 1, np.int32)
    for row, (kind, tokens) in enumerate(ordered):
        table[row, : 2 + len(tokens)] = [kind, len(tokens), *tokens]
        start[tokens[0] + 1] += 1
    share = st.sampled_from([0.0, 0.3, 0.7, 1.0])
    tables = op.MaskTables(
        torch.tensor(flags, dtype=torch.uint8), torch.from_numpy(table),
        torch.from_numpy(np.cumsum(start).astype(np.int32)), 1,
        draw(share), draw(share), draw(share), draw(st.integers(0, 3)),
        draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])),
    )  # fmt: skip
    window = draw(st.integers(0, 14))
    batch = draw(st.integers(0, 4))
    ids = draw(st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=window, max_size=window),
                        min_size=batch, max_size=batch))  # fmt: skip
    lengths = draw(st.lists(st.integers(0, window), min_size=batch, max_size=batch))
    samples = draw(st.lists(st.integers(0, 2**33), min_size=batch, max_size=batch))
    step, seed = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**63 - 1))
    return (
        torch.tensor(ids, dtype=torch.int64).reshape(batch, window),
        torch.tensor(lengths, dtype=torch.int64), torch.tensor(samples, dtype=torch.int64),
        step, seed, tables,
    )  # fmt: skip


def reference(ids, lengths, samples, step, seed, t: op.MaskTables, starts=None, window=None):
    return op._reference(
        ids, starts, ids.shape[1] if window is None else window, lengths, samples, step, seed,
        t.flags, t.patterns, t.pattern_start, t.mask_id, op.threshold(t.p_entity),
        op.threshold(t.p_other), op.threshold(t.p_plain),
        t.descriptor_words, t.template_weight,
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(cases())
def test_reference_and_kernel_equal_the_oracle(case) -> None:
    ids, lengths, samples, step, seed, tables = case
    want = [
        oracle(row, n, s, step, seed, tables)
        for row, n, s in zip(ids.tolist(), lengths.tolist(), samples.tolist(), strict=True)
    ]
    got = op.mask_tokens(*case)  # the kernel where it is built
    for outputs in (reference(*case), (got.ids, got.mask, got.weights, got.roles)):
        for column, tensor in enumerate(outputs):
            assert tensor.tolist() == [row[column] for row in want]
    # Packed: the same values without the padding.
    real = torch.arange(ids.shape[1]) < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    packed = op.mask_tokens(ids[real], lengths, samples, step, seed, tables, ids.shape[1])
    plain = reference(ids[real], lengths, samples, step, seed, tables, starts, ids.shape[1])
    for name, of_reference in zip(("ids", "mask", "weights", "roles"), plain, strict=True):
        assert torch.equal(getattr(packed, name), getattr(got, name)[real]), name
        assert torch.equal(of_reference, getattr(got, name)[real]), name


@pytest.fixture(scope="module")
def reports() -> tuple:
    from ecamp.datasets.phantom import PhantomDataset

    data = PhantomDataset(PhantomDataset.Config(pretrain=256, train=0, val=0, test=0))
    texts = [r.report for r in data.records()]
    tokenizer = train_tokenizer(texts, 800)
    ids, lengths = encode_reports(tokenizer, texts, 96)
    tables = compile_policy(MaskingPolicy(), tokenizer)
    return torch.from_numpy(ids), torch.from_numpy(lengths), torch.arange(len(ids)), tables


def same(a: op.MaskedTokens, b: op.MaskedTokens) -> None:
    for name in ("ids", "mask", "weights", "roles"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_a_mask_does_not_depend_on_batch_order_padding_or_threads(reports: tuple) -> None:
    ids, lengths, samples, tables = reports
    whole = op.mask_tokens(ids, lengths, samples, 3, 7, tables)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    shuffled = op.mask_tokens(ids[order], lengths[order], samples[order], 3, 7, tables)
    same(
        shuffled,
        op.MaskedTokens(*(getattr(whole, n)[order] for n in ("ids", "mask", "weights", "roles"))),
    )
    one = op.mask_tokens(ids[5:6], lengths[5:6], samples[5:6], 3, 7, tables)
    assert torch.equal(one.mask[0], whole.mask[5])
    padded = torch.cat([ids, torch.zeros(len(ids), 40, dtype=torch.int64)], 1)
    wide = op.mask_tokens(padded, lengths, samples, 3, 7, tables)
    short = lengths < ids.shape[1]
    assert torch.equal(wide.mask[short, : ids.shape[1]], whole.mask[short])
    strided = torch.stack([ids, ids], 2)[:, :, 0]
    assert not strided.is_contiguous()
    same(op.mask_tokens(strided, lengths, samples, 3, 7, tables), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        same(op.mask_tokens(ids, lengths, samples, 3, 7, tables), whole)
    finally:
        torch.set_num_threads(threads)


def test_frequencies_and_weights_are_those_of_the_policy(reports: tuple) -> None:
    ids, lengths, samples, tables = reports
    hits = {op.ENTITY: [0, 0], op.OTHER: [0, 0], op.DESCRIPTOR: [0, 0]}
    head = (tables.flags[ids] & op.CONTINUATION) == 0
    # Words that reach the end of the window are cut short by rule; leave those rows out.
    rows = (lengths < ids.shape[1])[:, None]
    for step in range(20):
        out = op.mask_tokens(ids, lengths, samples, step, 1, tables)
        with_entity = (out.roles == op.ENTITY).any(1, keepdim=True)
        for role, count in hits.items():
            index = (out.roles == role) & head & rows & with_entity
            count[0] += int(out.mask[index].sum())
            count[1] += int(index.sum())
        assert torch.allclose(out.weights.sum(1), out.mask.sum(1).float(), atol=1e-3)
        assert not out.weights[~out.mask].any()
    for role, p in ((op.ENTITY, tables.p_entity), (op.OTHER, tables.p_other)):
        hit, total = hits[role]
        assert abs(hit / total - p) < 5 * (p * (1 - p) / total) ** 0.5
    assert hits[op.DESCRIPTOR][0] == hits[op.DESCRIPTOR][1] > 0


def test_opcheck(reports: tuple) -> None:
    ids, lengths, samples, t = reports
    arguments = (
        ids[:4], None, ids.shape[1], lengths[:4], samples[:4], 3, 7,
        t.flags, t.patterns, t.pattern_start, t.mask_id, op.threshold(t.p_entity),
        op.threshold(t.p_other), op.threshold(t.p_plain),
        t.descriptor_words, t.template_weight,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.ecamp.mask_tokens.default, arguments)
    packed = torch.cat([row[:n] for row, n in zip(ids[:4], lengths[:4], strict=True)])
    starts = lengths[:4].cumsum(0) - lengths[:4]
    torch.library.opcheck(torch.ops.ecamp.mask_tokens.default, (packed, starts, *arguments[2:]))


def test_compiles_into_one_graph(reports: tuple) -> None:
    ids, lengths, samples, tables = reports

    def masked(ids: torch.Tensor, lengths: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        return torch.ops.ecamp.mask_tokens(
            ids, None, ids.shape[1], lengths, samples, 3, 7, tables.flags, tables.patterns,
            tables.pattern_start, tables.mask_id, 2**31, 2**31, 2**31, 2, 0.05,
        )[2] * 2  # fmt: skip

    compiled = torch.compile(masked, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(ids, lengths, samples), masked(ids, lengths, samples))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": torch.zeros(2, 4)}, "ids must be int64"),
        ({"lengths": torch.zeros(3, dtype=torch.int64)}, "lengths must be int64"),
        ({"ids": torch.full((2, 4), 99)}, "token id lies outside"),
        ({"lengths": torch.tensor([1, 9])}, "length lies outside"),
        ({"ids": torch.zeros(2, dtype=torch.int64)}, "(batch, L)"),
        ({"window": 4}, "sum of lengths"),
        ({"ids": torch.zeros(7, dtype=torch.int64), "window": 4}, "lengths sum to"),
        ({"ids": torch.zeros(5, dtype=torch.int64), "window": 3}, "length lies outside"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    tables = op.MaskTables(
        torch.zeros(10, dtype=torch.uint8), torch.zeros(0, 3, dtype=torch.int32),
        torch.zeros(11, dtype=torch.int32), 1, 0.5, 0.5, 0.5, 2, 0.05,
    )  # fmt: skip
    good = {"ids": torch.zeros(2, 4, dtype=torch.int64), "lengths": torch.tensor([4, 4]),
            "sample_ids": torch.tensor([0, 1]), "step": 0, "seed": 0}  # fmt: skip
    with pytest.raises((ValueError, RuntimeError), match=message):
        op.mask_tokens(**{**good, **change}, tables=tables)


@native
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_every_lane_gives_the_same_bits(reports: tuple, lane_index: int) -> None:
    ids, lengths, samples, tables = reports
    want = op.MaskedTokens(*reference(ids, lengths, samples, 3, 7, tables))
    with lane(lane_index):
        same(op.mask_tokens(ids, lengths, samples, 3, 7, tables), want)


@pytest.mark.slow
@native
def test_switched_off_gives_the_same_bytes() -> None:
    script = (
        "import torch, hashlib\nfrom ecamp.ops import mask_tokens as op\n"
        "t = op.MaskTables(torch.zeros(50, dtype=torch.uint8), torch.zeros(0, 3, dtype=torch.int32),"
        " torch.zeros(51, dtype=torch.int32), 1, .5, .5, .5, 2, .05)\n"
        "o = op.mask_tokens(torch.arange(400).reshape(8, 50) % 50, torch.full((8,), 50),"
        " torch.arange(8), 1, 2, t)\n"
        "print(hashlib.sha256(o.mask.numpy().tobytes()).hexdigest())"
    )
    out = [
        subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True,
                       check=True, env={**os.environ, "ECAMP_DISABLE_EXT": off}).stdout
        for off in ("0", "1")
    ]  # fmt: skip
    assert out[0] == out[1] != ""


@pytest.mark.slow
def test_without_the_library_there_is_one_warning(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ecamp", tmp_path / "ecamp", ignore=shutil.ignore_patterns("*.so"))
    script = (
        "import sys, warnings; sys.path.insert(0, '.')\n"
        "from ecamp.ops._ext import load_extension\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always'); load_extension(); load_extension()\n"
        "print(len([w for w in seen if 'no compiled kernels' in str(w.message)]))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ECAMP_")}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          check=True, env=environment)  # fmt: skip
    assert done.stdout.strip() == "1"
