"""Tokenizer and policy: the same bytes in every process, and nothing that the lexicon names is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.errors import MissingError, UsageError
from ecamp.ops.mask_tokens import CONTINUATION, ENTITY, SPECIAL, TEMPLATE
from ecamp.text.lexicon import Lexicon
from ecamp.text.policy import MaskingPolicy, compile_policy
from ecamp.text.tokenizer import SPECIALS, encode_reports, token_id, train_tokenizer

REPORTS = [
    "FINDINGS: There is a small left pneumothorax. No pleural effusion.",
    "IMPRESSION: Moderate cardiomegaly; no evidence of consolidation.",
    "The lungs are clear. No acute cardiopulmonary abnormality.",
]
TRAIN = """
import hashlib
from ecamp.datasets.phantom.study import describe_study
from ecamp.text.tokenizer import train_tokenizer
reports = [describe_study(0, i).report for i in range(300)]
print(hashlib.sha256(train_tokenizer(reports, 600).to_str().encode()).hexdigest())
"""


@pytest.mark.slow
def test_a_tokenizer_has_the_same_bytes_in_every_process():
    # Python's and Rust's hash seeds differ from process to process; three suffice to see it.
    digests = {
        subprocess.run(
            [sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(digests) == 1


def test_the_order_of_reports_does_not_matter():
    assert train_tokenizer(REPORTS, 300).to_str() == train_tokenizer(REPORTS[::-1], 300).to_str()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.integers(2, 24))
def test_any_text_encodes_within_bounds(texts: list[str], length: int):
    tokenizer = train_tokenizer(REPORTS, 300)
    ids, lengths = encode_reports(tokenizer, texts, length)
    pad, cls = token_id(tokenizer, "[PAD]"), token_id(tokenizer, "[CLS]")
    assert ids.shape == (len(texts), length)
    assert (ids[:, 0] == cls).all()
    for row, count in zip(ids, lengths, strict=True):
        assert 1 <= count <= length
        assert (row[count:] == pad).all()
        assert ((row >= 0) & (row < tokenizer.get_vocab_size())).all()


def test_a_report_comes_back():
    tokenizer = train_tokenizer(REPORTS, 300)
    ids, lengths = encode_reports(tokenizer, [REPORTS[0]], 96)
    text = tokenizer.decode(ids[0, 1 : lengths[0]].tolist())
    assert text.replace(" ", "") == REPORTS[0].lower().replace(" ", "")


@pytest.mark.parametrize("name", ["chest", "fundus"])
def test_every_form_of_a_shipped_lexicon_is_in_the_tables(name: str):
    lexicon = Lexicon.load(name)
    forms = {form: ENTITY for group in lexicon.entities.values() for form in group}
    forms |= dict.fromkeys(lexicon.templates, TEMPLATE)
    tokenizer = train_tokenizer(list(forms), 5000)
    tables = compile_policy(MaskingPolicy(lexicon=name), tokenizer)
    table, start = tables.patterns.tolist(), tables.pattern_start.tolist()
    for form, kind in forms.items():
        first, *rest = tokenizer.encode(form, add_special_tokens=False).ids
        mine = [row for row in table[start[first] : start[first + 1]] if row[0] == kind]
        expected = [1 + len(rest), first, *rest]
        assert expected in [row[1 : 1 + len(expected)] for row in mine], form
        # Longest first, so that the first match is the longest.
        lengths = [row[1] for row in table[start[first] : start[first + 1]]]
        assert lengths == sorted(lengths, reverse=True)


# The entities of the paper (ECAMP, section 3.2).
PAPER = """
    abnormality abscess aerate aorta atelectasis bronchiectasis calcification cardiomediastinal
    cardiomegaly catheter chf collapse congestion consolidation contour copd deformity dilation
    distention edema effusion embolism emphysema engorgement fibrosis fracture granuloma hernia hilar
    hyperinflate hemidiaphragm infiltrate mass nodule obscure opacity perihilar pneumonia pneumothorax
    sarcoidosis silhouette thickening tuberculosis vasculature
"""


def test_the_chest_lexicon_has_the_names_of_the_paper():
    assert len(PAPER.split()) == 44
    assert list(Lexicon.load("chest").entities) == PAPER.split()


@pytest.mark.parametrize("name", ["chest", "fundus"])
def test_a_shipped_lexicon_is_tidy(name: str):
    lexicon = Lexicon.load(name)
    forms = [form for group in lexicon.entities.values() for form in group]
    for form in [*forms, *lexicon.templates, *lexicon.entities]:
        assert form == " ".join(form.lower().split())
        assert form.replace("-", "").replace(" ", "").isalpha()
    assert len(set(forms + lexicon.templates)) == len(forms) + len(lexicon.templates)
    for entity, group in lexicon.entities.items():
        assert entity in group, "a canonical name is a form of itself"


def test_flags_follow_the_pieces():
    tokenizer = train_tokenizer(REPORTS, 300)
    flags = compile_policy(MaskingPolicy(), tokenizer).flags.tolist()
    for piece, index in tokenizer.get_vocab().items():
        assert bool(flags[index] & SPECIAL) == (piece in SPECIALS)
        assert bool(flags[index] & CONTINUATION) == piece.startswith("##")


def test_wrong_lexicons_are_named(tmp_path: Path):
    with pytest.raises(MissingError, match="No lexicon 'abdomen'"):
        Lexicon.load("abdomen")
    with pytest.raises(MissingError, match=r"nowhere\.yaml"):
        Lexicon.load("nowhere.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nversion: 1\nentitys: {a: [b]}\n")
    with pytest.raises(UsageError, match=r"wrong\.yaml.*unknown key 'entitys'.*entities"):
        Lexicon.load(str(wrong))
    wrong.write_text("a: [b\n")
    with pytest.raises(UsageError, match="not YAML"):
        Lexicon.load(str(wrong))
