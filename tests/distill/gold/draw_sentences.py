"""Draws the sentences of the gold set: `python draw_sentences.py reports.csv` prints them as JSON lines.

Only reports with an even uid (rules are tuned on the odd ones), columns findings and impression.
First a plain draw among all sentences, then one among those left that hold a word of doubt, because
doubt is rare. The output holds text of the reports: keep it out of the repository.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from pathlib import Path

from ecamp.text.sentences import split_sentences

SEED, PLAIN, HEDGED = 20_261_203, 260, 70
SECTIONS = ("findings", "impression")
HEDGE = re.compile(
    r"\b(may|might|could|possibl[ey]|possibility|probabl[ey]|likely|suspicious|suspicion|suspected|"
    r"suggest\w*|cannot|versus|vs|question\w*|consider\w*|compatible|concerning|worrisome|"
    r"differential|rule out|exclude\w*|appears?|presum\w*)\b",
    re.IGNORECASE,
)  # fmt: skip

Sentence = tuple[str, str, int, int, str]  # uid, section, start, end, text


def draw(path: Path) -> list[Sentence]:
    """Draw the sentences of the gold set, ordered by uid, section and position."""
    pool: list[Sentence] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["uid"]) % 2:
                continue
            for section in SECTIONS:
                text = row[section]
                pool += [(row["uid"], section, a, b, text[a:b]) for a, b in split_sentences(text)]
    generator = random.Random(SEED)
    plain = generator.sample(pool, PLAIN)
    left = sorted(set(pool) - set(plain))
    hedged = generator.sample([item for item in left if HEDGE.search(item[4])], HEDGED)
    return sorted([*plain, *hedged], key=lambda item: (int(item[0]), item[1], item[2]))


if __name__ == "__main__":
    for uid, section, start, end, text in draw(Path(sys.argv[1])):
        print(json.dumps({"id": uid, "section": section, "start": start, "end": end, "text": text}))
