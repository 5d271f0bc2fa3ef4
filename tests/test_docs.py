"""Citations resolve within the repository: files, headings, and no document that is elsewhere."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ecamp", "csrc", "tests", "benchmarks", "plugins", "docs")
TOP = ("*.md", "CMakeLists.txt", "Makefile", "setup.py", "pyproject.toml")
ENDINGS = {".py", ".md", ".h", ".cuh", ".cpp", ".cu", ".txt", ".yaml", ".toml", ".j2", ".css"}
# Upper-case words that would cite a document nobody has; written small here, so that this file is clean.
ELSEWHERE = frozenset(["method", "evaluation", "design", "kernels", "house"])
PUBLIC = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "GUIDELINE.md", "SECURITY.md", "KIND.md")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"(?<![\w/.-])((?:\.\./|[\w-]+/)*[\w-]+\.md)((?:(?:, )?#[\w-]+)*)")
NUMBER = re.compile(r"[Ff]laws? (?:no\. ?)?F?\d+|(?<![\w\"'#])F(?:[2-9]|[1-9]\d)(?![\w\"'])")
SHORT = re.compile(r"(?<![\w&])#(f\d{1,2})\b")


def _tracked() -> list[Path]:
    """Text files of the repository, those that git does not know yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *FOLDERS, *TOP],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:  # an unpacked archive
        names = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*")]
        names += [p for pattern in TOP for p in ROOT.glob(pattern)]
    else:
        names = [ROOT / name for name in listed.stdout.split("\0") if name]
    return sorted(p for p in names if p.suffix in ENDINGS and p.is_file() and p != Path(__file__))


FILES = _tracked()
PAGES = [path for path in FILES if path.suffix == ".md"]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@cache
def _anchors(page: Path) -> frozenset[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", _text(page)), re.MULTILINE)
    slugs = [_slug(heading) for heading in headings]
    assert len(slugs) == len(set(slugs)), f"{page.name}: two headings have one anchor"
    return frozenset(slugs)


def _ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_the_search_finds_files() -> None:
    names = set(_ids(FILES))
    assert {"README.md", "docs/published-flaws.md", "ecamp/published/downstream/yolo.py"} <= names
    assert len(FILES) > 300


@pytest.mark.parametrize("page", PAGES, ids=_ids(PAGES))
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(FENCE.sub("", _text(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            dead.append(target)
    assert not dead, f"{page.relative_to(ROOT)} links to what is not there: {dead}"


def test_every_cited_page_and_heading_exists() -> None:
    flaws = _anchors(ROOT / "docs/published-flaws.md")
    dead = []
    for path in FILES:
        index = path.relative_to(ROOT)
        for name, anchors in NAMED.findall(_text(path)):
            there = next((p for p in (ROOT / name, path.parent / name) if p.is_file()), None)
            if there is None and name.startswith("docs/"):
                dead.append(f"{index}: {name}")
            elif there is not None:
                found = set(re.findall(r"#([\w-]+)", anchors))
                dead += [f"{index}: {name}#{anchor}" for anchor in found - _anchors(there)]
        if path.suffix not in (".md", ".css", ".j2"):  # "(#f17)", after the page was named in full
            dead += [
                f"{index}: #{number}"
                for number in SHORT.findall(_text(path))
                if number not in flaws
            ]
    assert not dead


def test_no_document_from_elsewhere_is_cited() -> None:
    """A paper, a public repository or a page of docs/ can be read; anything else cannot."""
    cited = []
    for path in FILES:
        text = re.sub(r"\[F(\d+)\]\([\w./-]*#f\1\)", "", _text(path))
        words = [
            w for w in re.findall(r"(?<![\w.])[A-Z]{5,}(?!\w)", text) if w.lower() in ELSEWHERE
        ]
        words += [name for name in re.findall(r"\b[A-Z]{3,}\.md\b", text) if name not in PUBLIC]
        if path.name != "published-flaws.md":
            words += NUMBER.findall(text)  # "flaw 8" or "F17" alone: docs/published-flaws.md#f17
        cited += [f"{path.relative_to(ROOT)}: {word}" for word in words]
    assert not cited


def test_every_flaw_has_its_parts() -> None:
    """Defect, place, effect and our replacement; numbered without a gap."""
    page = _text(ROOT / "docs/published-flaws.md")
    parts = re.split(r"^### F(\d+)\n", page, flags=re.MULTILINE)
    numbers, bodies = [int(n) for n in parts[1::2]], parts[2::2]
    assert numbers == list(range(1, len(numbers) + 1))
    for number, body in zip(numbers, bodies, strict=True):
        assert body.lstrip().startswith("**"), f"F{number} does not begin with what it is"
        assert re.findall(r"^- (\w+):", body, re.MULTILINE) == ["Where", "Effect", "Here"], number


def test_every_decision_is_under_a_room() -> None:
    """Each `##` is in the table of contents and holds headings; each `###` holds text."""
    page = _text(ROOT / "docs/decisions.md")
    head, *rooms = re.split(r"^## ", page, flags=re.MULTILINE)
    listed = re.findall(r"^- \[[^\]]*\]\(#([\w-]+)\)", head, re.MULTILINE)
    assert listed == [_slug(room.split("\n")[0]) for room in rooms]
    for room in rooms:
        _, *decisions = re.split(r"^### ", room, flags=re.MULTILINE)
        assert decisions
        assert all(len(decision.split("\n", 1)[1].split()) > 20 for decision in decisions)
