"""The rules as a plugin: settings, identity, a user's lexicon and cues, errors that name what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ecamp.api.distiller import Report, Section
from ecamp.distill.rules import RulesDistiller
from ecamp.distill.rules.cues import Cues, expand_pattern
from ecamp.distill.rules.tokens import Phrases, tokens
from ecamp.errors import MissingError, UsageError
from ecamp.text.lexicon import Lexicon

TEXT = "No effusion. Small pneumothorax."


def rules(**options: object) -> RulesDistiller:
    return RulesDistiller(RulesDistiller.Config.model_validate(options))


def said(distiller: RulesDistiller, *reports: Report) -> list[list[tuple[str, str, str]]]:
    return [
        [(s.entity, s.polarity, s.section) for s in found.statements]
        for found in distiller.distill(reports)
    ]


def test_only_wanted_sections_are_read() -> None:
    text = f"{TEXT} Edema."
    sections = (Section("findings", 0, 12), Section("impression", 13, len(text)))
    report = Report("1", text, sections)
    first, rest = ("effusion", "absent", "findings"), [
        ("pneumothorax", "present", "impression"), ("edema", "present", "impression"),
    ]  # fmt: skip
    assert said(rules(), report) == [[first, *rest]]
    assert said(rules(sections=["Impression"]), report) == [rest]
    assert said(rules(sections=["comparison"]), report) == [[]]
    assert said(rules(sections="findings,impression"), report) == [[first, *rest]]
    assert said(rules(), Report("2", "", ()), Report("3", text, ())) == [[], []]


def test_statements_become_the_text_to_insert() -> None:
    report = Report("1", TEXT, (Section("", 0, len(TEXT)),))
    found = next(iter(rules().distill([report])))
    assert found.text == "There is no effusion. There is pneumothorax."
    assert found.as_json(report)["statements"][1]["evidence"] == "pneumothorax"


@pytest.mark.slow
def test_identity_follows_the_content_of_files(tmp_path: Path) -> None:
    base = rules().identity_fields()
    lexicon, cues = tmp_path / "own.yaml", tmp_path / "cues.yaml"
    lexicon.write_text(yaml.safe_dump(Lexicon.load("chest").model_dump()))
    cues.write_text(yaml.safe_dump(Cues.load("english").model_dump()))
    assert rules(lexicon=str(lexicon), cues=str(cues)).identity_fields() == base
    assert rules(remember=0).identity_fields() == base
    assert rules(sections=["findings"]).identity_fields() != base
    assert rules(lexicon="fundus").identity_fields() != base
    changed = Cues.load("english").model_dump()
    changed["cues"][0]["words"].append("hardly any")
    cues.write_text(yaml.safe_dump(changed))
    assert rules(cues=str(cues)).identity_fields() != base
    text = "Hardly any effusion."
    report = Report("1", text, (Section("", 0, len(text)),))
    assert said(rules(), report) == [[("effusion", "present", "")]]
    assert said(rules(cues=str(cues)), report) == [[("effusion", "absent", "")]]


def test_a_user_may_bring_a_lexicon(tmp_path: Path) -> None:
    path = tmp_path / "knee.yaml"
    path.write_text("name: knee\nversion: 1\nentities:\n  tear: [tear, torn, bucket-handle tear]\n")
    text = "Heart size is normal. No bucket handle tear; the ligament is TORN."
    report = Report("1", text, (Section("", 0, len(text)),))
    found = next(iter(rules(lexicon=str(path)).distill([report]))).statements
    assert [(s.polarity, text[s.start : s.end]) for s in found] == [
        ("absent", "bucket handle tear"), ("present", "TORN"),
    ]  # fmt: skip


def test_fundus_structures() -> None:
    text = "The optic disc is normal. No haemorrhages or exudates. Possible macular hole."
    report = Report("1", text, (Section("", 0, len(text)),))
    assert said(rules(lexicon="fundus"), report) == [[
        ("optic disc", "absent", ""), ("haemorrhage", "absent", ""), ("hard exudate", "absent", ""),
        ("hole", "possible", ""),
    ]]  # fmt: skip


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        rules(lexikon="chest")
    with pytest.raises(MissingError, match="No cues 'englich'") as missing:
        rules(cues="englich")
    assert "english" in missing.value.hint
    with pytest.raises(MissingError, match="No lexicon 'english'"):
        rules(lexicon="english")
    with pytest.raises(MissingError, match="no such cues"):
        rules(cues=str(tmp_path / "none.yaml"))
    own = tmp_path / "own.yaml"
    value = Cues.load("english").model_dump()
    value["cues"].append({"kind": "possible", "direction": "forward", "words": ["without"]})
    own.write_text(yaml.safe_dump(value))
    with pytest.raises(UsageError, match="'without' has two meanings: absent and possible"):
        rules(cues=str(own))
    own.write_text(
        "name: x\nversion: 1\ncues: [{kind: denied, direction: forward, words: [a]}]\njoints: {}"
    )
    with pytest.raises(UsageError, match=r"cues.0.kind"):
        rules(cues=str(own))
    own.write_text("- no")
    with pytest.raises(UsageError, match="mapping with name, version, cues, joints"):
        rules(cues=str(own))
    own.write_text("name: x\nversion: 1\ncues: []\njoints: {}\nignored: ['%']")
    with pytest.raises(UsageError, match="'%' contains no word"):
        rules(cues=str(own))


def test_patterns_are_spelled_out() -> None:
    assert expand_pattern("no (new |)change") == ["no new change", "no change"]
    assert expand_pattern("(a|(b|c) d)") == ["a", "b d", "c d"]
    assert expand_pattern("(") == ["("]


def test_the_longest_phrase_wins() -> None:
    phrases = Phrases(Lexicon.load("chest"), Cues.load("english"))
    words = tokens("Pleural effusion, ground-glass opacity of 2.5cm w/o heart failure isn't")
    assert [w for w, _, _ in words][-6:] == ["w", "/", "o", "heart", "failure", "isn't"]
    assert "2.5" in [w for w, _, _ in words]
    named = [p.findings for p, _, _ in phrases.scan(words) if p.findings]
    assert named == [("effusion",), ("opacity",), ("chf",)]


def test_every_form_of_the_shipped_lexicons_is_found() -> None:
    """Every form is matched whole, for its entity, wherever it appears on its own."""
    for name in ("chest", "fundus"):
        lexicon = Lexicon.load(name)
        phrases = Phrases(lexicon, Cues.load("english"))
        for entity, forms in lexicon.entities.items():
            for form in forms:
                words = tokens(form)
                found = list(phrases.scan(words))
                assert [(first, end) for _, first, end in found] == [(0, len(words))], form
                assert entity in found[0][0].findings + found[0][0].structures


def test_no_heavy_import() -> None:
    code = "import sys, ecamp.distill.rules\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "numpy"}
