"""masking.json: insertion, tokens, draws, masks and loss weights of each report."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ecamp.published.pretraining import masking
from ecamp.published.pretraining.masking import Vocabulary
from ecamp.text.tokenizer import encode_reports
from tests.golden.check import EXACT, Check, compare, read_json, worst

FILE, TOKENIZER = "masking.json", "mimic_wordpiece.json"
WEIGHT = 2e-7  # relative: one rounding to float32
# Ids of the published vocabulary, for where its file is not at hand.
FULL_STOP, TEMPLATES = 16, ((219, 149, 152, 422, 158), (219, 149, 152))


class Recorder:
    """A `random.Random` that keeps what it gave."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.drawn: list[float] = []
        self.chosen: list[int] = []

    def random(self) -> float:
        self.drawn.append(self._random.random())
        return self.drawn[-1]

    def randint(self, a: int, b: int) -> int:
        self.chosen.append(self._random.randint(a, b))
        return self.chosen[-1]


def find_tokenizer(folder: Path) -> Tokenizer | None:
    """Load the published tokenizer, next to the folder or in the development data."""
    roots = [folder.resolve(), *folder.resolve().parents[:3]]
    if "ECAMP_SHARED" in os.environ:
        roots.append(Path(os.environ["ECAMP_SHARED"]))
    for path in (root / place / TOKENIZER for root in roots for place in ("", "data/tokenizer")):
        if path.is_file():
            return Tokenizer.from_file(str(path))
    return None


def vocabulary_of(folder: Path) -> tuple[Vocabulary, Tokenizer | None]:
    """The published vocabulary; without its file, as much of it as the recorded runs show."""
    tokenizer = find_tokenizer(folder)
    if tokenizer is not None:
        return Vocabulary.of(tokenizer), tokenizer
    content = read_json(folder / FILE)
    entities: set[int] = set()
    pieces: set[int] = set()
    for run in (run for case in content["cases"] for run in case["runs"]):
        ids, head = run["ids"], content["head"]
        end = ids.index(head["pad_id"]) if head["pad_id"] in ids else len(ids) - 1
        entities.update(ids[i] for i in run["entity_pos"])
        pieces.update(ids[i] for i in set(range(1, end)) - set(run["draw_pos"]))
    head = content["head"]
    vocabulary = Vocabulary(
        frozenset(entities),
        frozenset(pieces),
        TEMPLATES,
        head["mask_id"],
        head["pad_id"],
        FULL_STOP,
    )
    return vocabulary, None


def head_checks(file: str, head: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Check]:
    """The constants that a file was made with."""
    ours = {
        "mask_id": vocabulary.mask,
        "pad_id": vocabulary.pad,
        "template_weight": masking.TEMPLATE_WEIGHT,
        "probabilities": {
            "insert": masking.P_INSERT,
            "entity_report_non_entity": masking.P_OTHER,
            "no_entity_report": masking.P_PLAIN,
            "entity": masking.P_ENTITY,
        },
    }
    for name, value in ours.items():
        same = head[name] == value
        yield Check(f"{file}/head/{name}", 0.0 if same else float("nan"), EXACT)
    known = {*ours, "split", "seed", "max_length", "cls_id", "vocab_size", "note"}
    yield from unknown(f"{file}/head", head, known)


def unknown(where: str, fields: Mapping[str, Any], known: set[str]) -> Iterator[Check]:
    """A failing check for each field that nothing looks at."""
    for name in sorted(set(fields) - known):
        yield Check(f"{where}/{name}", float("nan"), EXACT, "unknown field")


def checks(folder: Path) -> Iterator[Check]:
    """Every run of every report, one line a field."""
    content = read_json(folder / FILE)
    vocabulary, tokenizer = vocabulary_of(folder)
    yield from unknown(FILE, content, {"head", "cases"})
    yield from head_checks(FILE, content["head"], vocabulary)
    if tokenizer is not None:
        size = tokenizer.get_vocab_size()
        yield compare(f"{FILE}/head/vocab_size", size, content["head"]["vocab_size"], EXACT)
    fields: dict[str, list[Check]] = {}
    for case in content["cases"]:
        yield from unknown(f"{FILE}/{case['id']}", case, {"id", "tags", "report", "llm", "runs"})
        for number, run in enumerate(case["runs"]):
            name = f"case {case['id']} run {number}"
            ours = replay(case, run, vocabulary, tokenizer)
            yield from unknown(f"{FILE}/{name}", run, {*ours, "ids", "seed", "n_tokens"})
            for field, value in ours.items():
                fields.setdefault(field, []).append(_field(field, name, value, run[field]))
            fields.setdefault("n_tokens", []).append(
                compare(name, sum(ours["attention_mask"]), run["n_tokens"], EXACT)
            )
    for field, every in fields.items():
        yield worst(f"{FILE}/{field}", every)


def _field(field: str, name: str, ours: Any, recorded: Any) -> Check:
    if field != "weights":
        same = ours == recorded
        return Check(name, 0.0 if same else float("nan"), EXACT, "" if same else "differs")
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float32)
    if ours.shape != recorded.shape:
        return compare(name, ours, recorded, WEIGHT)
    return Check(name, float((np.abs(ours - recorded) / np.abs(recorded)).max()), WEIGHT)


def replay(
    case: Mapping[str, Any], run: Mapping[str, Any], vocabulary: Vocabulary,
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:  # fmt: skip
    """Compute our result for one run's seed, by the recorded field."""
    source = Recorder(run["seed"])
    text = masking.insert_distilled(case["report"], case["llm"], source)
    add_prob = source.drawn.pop()
    if tokenizer is not None:
        encoded, lengths = encode_reports(tokenizer, [text], len(run["ids"]))
        ids, length = encoded[0].tolist(), int(lengths[0])
    else:
        ids, length = run["ids"], run["n_tokens"]
    plan = masking.plan(ids, vocabulary)
    masked = masking.mask(ids, plan, vocabulary, source)
    return {
        "add_prob": add_prob,
        "inserted": bool(source.chosen),
        "location": source.chosen[0] if source.chosen else None,
        "n_segments": len(case["report"].split(".")),
        "sentence": f"[CLS] {text}",
        "ids": ids,
        "attention_mask": [1] * length + [0] * (len(ids) - length),
        "draws": source.drawn,
        "draw_pos": [*plan.heads, *plan.entities],
        "masked_ids": masked,
        "mask_pos": list(plan.context),
        "entity_pos": list(plan.entities),
        "weights": masking.weigh(ids, plan, vocabulary),
    }
