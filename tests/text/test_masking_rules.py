"""The masking rules of arXiv 2312.13316, section 3.2, checked on words by an oracle that knows no token.

The oracle reads the lexicon file and plain words; `mask_tokens` sees token ids. Texts come from a
grammar (hypothesis), from a fixed stream of it (frequencies), and from real reports, with a
vocabulary that knows most words and with one that breaks them into pieces.
"""

from __future__ import annotations

import csv
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib import resources
from math import fsum
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ecamp.ops.mask_tokens import (
    DESCRIPTOR,
    ENTITY,
    NO_ROLE,
    OTHER,
    TEMPLATE,
    MaskedTokens,
    MaskTables,
    mask_tokens,
)
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.sentences import split_sentences
from ecamp.text.tokenizer import encode_reports, train_tokenizer

WINDOW = 256
WEIGHT = 0.05  # of a template token
LEXICON = yaml.safe_load((resources.files("ecamp.text") / "lexicons" / "chest.yaml").read_text())


# Words as the pre-tokenizers cut them: ours parts all punctuation, the published one keeps runs of it.
OURS, PUBLISHED = r"[a-z0-9]+|[^\sa-z0-9]", r"[0-9]+|[a-z]+|[^\sa-z0-9]+"


def words_of(text: str, pattern: str = OURS) -> list[str]:
    return re.findall(pattern, text.lower())


FORMS = {
    TEMPLATE: {tuple(words_of(form)) for form in LEXICON["templates"]},
    ENTITY: {tuple(words_of(form)) for forms in LEXICON["entities"].values() for form in forms},
}
STOP_MARKS = set(".,;:?!()")
LONGEST = max(len(form) for forms in FORMS.values() for form in forms)


def word_roles(words: Sequence[str]) -> list[int]:
    """Role of each word: templates, then entities, the longest form first; then two descriptors."""
    roles = [NO_ROLE if word == "[unk]" else OTHER for word in words]
    for kind in (TEMPLATE, ENTITY):
        index = 0
        while index < len(words):
            for size in range(min(LONGEST, len(words) - index), 0, -1):
                free = all(role == OTHER for role in roles[index : index + size])
                if free and tuple(words[index : index + size]) in FORMS[kind]:
                    roles[index : index + size] = [kind] * size
                    index += size - 1
                    break
            index += 1
    entities = [i for i, role in enumerate(roles) if role == ENTITY]
    for entity in entities:
        for left in (entity - 1, entity - 2):
            if left < 0 or roles[left] not in (OTHER, DESCRIPTOR) or set(words[left]) & STOP_MARKS:
                break
            roles[left] = DESCRIPTOR
    return roles


def word_positions(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Words of a row without padding, each with the positions of its pieces."""
    words: list[tuple[str, list[int]]] = []
    for i, index in enumerate(ids[1:], 1):
        piece = tokenizer.id_to_token(int(index))
        if piece.startswith("##") and words:
            words[-1] = (words[-1][0] + piece[2:], [*words[-1][1], i])
        else:
            words.append((piece.lower(), [i]))
    return words


def check_row(
    tokenizer: Tokenizer, ids: list[int], masked: MaskedTokens, row: int, mask_id: int
) -> tuple[list[tuple[str, list[int]]], list[int]]:
    """Assert every rule that holds in each draw; return the words and their roles."""
    window = masked.ids.shape[1]
    words = word_positions(tokenizer, ids)
    roles = word_roles([word for word, _ in words])
    mask, weights = masked.mask[row].tolist(), masked.weights[row].tolist()
    got_roles, got_ids = masked.roles[row].tolist(), masked.ids[row].tolist()
    assert not mask[0]
    assert not any(mask[len(ids) :])
    hit = {TEMPLATE: 0, ENTITY: 0, DESCRIPTOR: 0, OTHER: 0}
    for (_word, positions), role in zip(words, roles, strict=True):
        assert [got_roles[i] for i in positions] == [role] * len(positions)
        inside = [i for i in positions if i < window - 1]  # the last position is never masked
        fate = {mask[i] for i in inside}
        assert len(fate) <= 1, "a word is masked whole or not at all"
        if role == DESCRIPTOR:
            assert fate <= {True}
        if role == NO_ROLE:
            assert fate <= {False}
        hit[role] = hit.get(role, 0) + sum(mask[i] for i in positions)
    assert not (len(ids) == window and mask[window - 1])
    for i, index in enumerate(ids):
        assert got_ids[i] == (mask_id if mask[i] else index)
    check_weights(mask, weights, got_roles, hit)
    return words, roles


def check_weights(
    mask: list[bool], weights: list[float], roles: list[int], hit: dict[int, int]
) -> None:
    """Weights sum to the number of predicted tokens; templates have 0.05 of the mean.

    Where nothing but template words is predicted, both cannot be: all tokens of such a text weigh
    the same, hence the mean, hence 1. See docs/decisions.md#loss-weights-of-templates.
    """
    predicted = sum(mask)
    assert all(w == 0 for w, m in zip(weights, mask, strict=True) if not m)
    assert abs(fsum(weights) - predicted) <= 1e-6 * predicted
    strong = hit[ENTITY] + hit[DESCRIPTOR]
    only_templates = strong + hit[OTHER] == 0
    freed = 0.0 if only_templates else (1 - WEIGHT) * hit[TEMPLATE]
    want = {
        TEMPLATE: 1.0 if only_templates else WEIGHT,
        ENTITY: 1 + freed / max(strong, 1),
        DESCRIPTOR: 1 + freed / max(strong, 1),
        OTHER: 1.0 if strong else 1 + freed / max(hit[OTHER], 1),
    }
    mean = fsum(weights) / predicted if predicted else 1.0
    for weight, masked, role in zip(weights, mask, roles, strict=True):
        if masked:
            assert weight == pytest.approx(want[role], rel=1e-6)
        if masked and role == TEMPLATE and not only_templates:
            assert weight <= WEIGHT * mean * (1 + 1e-6)


# --- texts ----------------------------------------------------------------------------------------

ENTITY_TEXTS = sorted(form for forms in LEXICON["entities"].values() for form in forms)
TEMPLATE_TEXTS = sorted(LEXICON["templates"])
DESCRIPTORS = ["small", "left", "mild", "bibasilar", "posterolateral", "newly", "2.5", "cm"]
OTHERS = ["the", "lungs", "are", "clear", "heart", "normal", "seen", "xxxx", "cholecystectomy"]
STOPS = sorted(STOP_MARKS)
# Learnt from little more than the lexicon, so that other words fall into pieces.
TRAINED = train_tokenizer([*ENTITY_TEXTS, *TEMPLATE_TEXTS, *OTHERS, *DESCRIPTORS, *STOPS], 420)
TABLES = compile_policy(MaskingPolicy(), TRAINED)

PIECES = st.one_of(
    st.sampled_from(ENTITY_TEXTS),
    st.sampled_from(TEMPLATE_TEXTS),
    st.sampled_from(DESCRIPTORS),
    st.sampled_from(OTHERS),
    st.sampled_from(STOPS),
)
GRAMMAR = st.lists(PIECES, max_size=40).map(" ".join)


def run(
    tokenizer: Tokenizer, tables: MaskTables, texts: Sequence[str], window: int, seed: int
) -> tuple[list[list[int]], MaskedTokens]:
    ids, lengths = encode_reports(tokenizer, texts, window)
    rows = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
    masked = mask_tokens(
        torch.from_numpy(ids), torch.from_numpy(lengths), torch.arange(len(texts)), 0, seed, tables
    )
    return rows, masked


def test_the_vocabulary_breaks_words() -> None:
    for word in ("posterolateral", "cholecystectomy", "pneumothoraces"):
        assert len(TRAINED.encode(word, add_special_tokens=False).ids) > 1


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(GRAMMAR, min_size=1, max_size=4),
    st.sampled_from([9, 24, WINDOW]),
    st.integers(0, 2**40),
)
@example(["no"], WINDOW, 0)
@example(["there is no evidence of"], WINDOW, 3)
@example(["small left effusion . no mild effusion"], 9, 1)
def test_every_rule_holds_in_generated_reports(texts: list[str], window: int, seed: int) -> None:
    rows, masked = run(TRAINED, TABLES, texts, window, seed)
    for row, ids in enumerate(rows):
        words, _ = check_row(TRAINED, ids, masked, row, TABLES.mask_id)
        if len(ids) < window:  # not cut: the words of the tokens are those of the text
            assert [word for word, _ in words] == words_of(texts[row])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TEMPLATE_TEXTS), st.sampled_from(["", ".", " mass", " mass ."]))
def test_templates_are_light_wherever_anything_else_is_predicted(form: str, rest: str) -> None:
    for seed in range(12):
        rows, masked = run(TRAINED, TABLES, [form + rest], WINDOW, seed)
        mask, roles = masked.mask[0], masked.roles[0]
        templates = masked.weights[0][mask & (roles == TEMPLATE)]
        alone = not (mask & (roles != TEMPLATE)).any()
        assert (templates == (1.0 if alone else torch.tensor(WEIGHT))).all()
        assert len(rows[0]) > 1


def test_a_stop_keeps_descriptors_back() -> None:
    for stop in STOPS:
        (ids,), masked = run(TRAINED, TABLES, [f"mild {stop} left effusion"], WINDOW, 0)
        words, roles = check_row(TRAINED, ids, masked, 0, TABLES.mask_id)
        assert [word for word, _ in words] == ["mild", stop, "left", "effusion"]
        assert roles == [OTHER, OTHER, DESCRIPTOR, ENTITY]


# --- frequencies ----------------------------------------------------------------------------------


def count_hits(
    tokenizer: Tokenizer, tables: MaskTables, texts: Sequence[str], seeds: Iterable[int]
) -> dict[str, tuple[int, int]]:
    """Words masked and words seen, by the probability that the rules give them."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    ids, lengths = encode_reports(tokenizer, texts, WINDOW)
    kept = [
        [(p[0], role) for (_, p), role in zip(words, word_roles([w for w, _ in words]), strict=True)
         if p[-1] < WINDOW - 1]
        for words in (word_positions(tokenizer, row[:n].tolist())
                      for row, n in zip(ids, lengths, strict=True))
    ]  # fmt: skip
    for seed in seeds:
        _, masked = run(tokenizer, tables, texts, WINDOW, seed)
        for words, mask in zip(kept, masked.mask.tolist(), strict=True):
            entity = any(role == ENTITY for _, role in words)
            for head, role in words:
                if role != NO_ROLE:
                    name = NAMES[role] if entity else "plain"
                    counts[name][0] += mask[head]
                    counts[name][1] += 1
    return {name: (hit, seen) for name, (hit, seen) in counts.items()}


NAMES = {ENTITY: "entity", DESCRIPTOR: "descriptor", OTHER: "other", TEMPLATE: "template"}
CHANCES = {"entity": 0.75, "descriptor": 1.0, "other": 0.70, "template": 0.70, "plain": 0.75}


def check_frequencies(counts: dict[str, tuple[int, int]], least: int) -> None:
    assert set(counts) == set(CHANCES)
    for name, chance in CHANCES.items():
        hit, seen = counts[name]
        assert seen >= least, name
        error = (chance * (1 - chance) / seen) ** 0.5
        assert abs(hit / seen - chance) <= 4.5 * error, (name, hit, seen)


def test_frequencies_in_generated_reports() -> None:
    rng = random.Random(20)
    kinds = [ENTITY_TEXTS, TEMPLATE_TEXTS, DESCRIPTORS, OTHERS, OTHERS, STOPS]
    texts = [
        " ".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 25)))
        for _ in range(400)
    ]
    texts += [" ".join(rng.choice(OTHERS + STOPS) for _ in range(12)) for _ in range(100)]
    check_frequencies(count_hits(TRAINED, TABLES, texts, range(12)), 5_000)


# --- real reports ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[str]:
    with (shared_data / "iu_reports" / "reports.csv").open(encoding="utf-8", newline="") as file:
        return [f"{row['findings']} {row['impression']}" for row in csv.DictReader(file)]


@pytest.fixture(scope="module", params=["published", "trained"])
def vocabulary(
    request: pytest.FixtureRequest, shared_data: Path, real: list[str]
) -> tuple[Tokenizer, MaskTables]:
    if request.param == "published":
        tokenizer = Tokenizer.from_file(str(shared_data / "tokenizer" / "mimic_wordpiece.json"))
    else:
        tokenizer = train_tokenizer(real[:400], 1500)
    return tokenizer, compile_policy(MaskingPolicy(), tokenizer)


@pytest.mark.slow
@pytest.mark.real
def test_every_rule_holds_in_real_reports(
    vocabulary: tuple[Tokenizer, MaskTables], real: list[str]
) -> None:
    tokenizer, tables = vocabulary
    assert len(real) == 2503
    pattern = PUBLISHED if tokenizer.token_to_id("..") is not None else OURS
    rows, masked = run(tokenizer, tables, real, WINDOW, 7)
    for row, ids in enumerate(rows):
        words, _ = check_row(tokenizer, ids, masked, row, tables.mask_id)
        if len(ids) < WINDOW and "[unk]" not in [word for word, _ in words]:
            assert [word for word, _ in words] == words_of(real[row], pattern)


@pytest.mark.slow
@pytest.mark.real
def test_frequencies_in_real_reports(
    vocabulary: tuple[Tokenizer, MaskTables], real: list[str]
) -> None:
    # Sentences, too: most of those without an entity are in reports that have one.
    sentences = [text[a:b] for text in real[::4] for a, b in split_sentences(text)]
    check_frequencies(count_hits(*vocabulary, [*real, *sentences], range(3)), 5_000)
