"""Renders the masking of a report as one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecamp.text.explain import Draw, Explanation

# Role -> its rule in one sentence, for the legend.
RULES = {
    "entity": "A finding or structure that the lexicon lists. Hidden often, so that the image must name it.",
    "descriptor": "Up to {words} words left of an entity, not across a clause mark. Always hidden: they "
    "describe location, size and certainty.",
    "template": "Set phrases of denial. The model can guess them without the image, so their loss "
    "weight is {weight:g}.",
    "other": "All other words.",
    "unknown": "Not in the vocabulary. Never hidden.",
    "cut": "After the last token that fits into the window. Not seen by the model.",
}


def render_explanation(explanation: Explanation, vocabulary: str) -> str:
    """Render the page as HTML; it has no script and loads nothing.

    Args:
        explanation: The report with its draws.
        vocabulary: Name of the tokenizer, for the page's header.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader("ecamp", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("explain.html.j2")  # fmt: skip
    heaviest = max((weight for draw in explanation.draws for weight in draw.weights), default=0.0)
    return template.render(
        words=[_word(explanation, index) for index in range(len(explanation.words))],
        draws=[_draw(explanation, draw, heaviest) for draw in explanation.draws],
        legend=_legend(explanation),
        tokens=explanation.tokens,
        lexicon=explanation.policy.lexicon,
        vocabulary=vocabulary,
        step=explanation.draws[0].step,
    )


def _word(explanation: Explanation, index: int) -> dict[str, Any]:
    """Describe a word: its role, the draws that hide it, and the gap before it."""
    word = explanation.words[index]
    gap = explanation.text[explanation.words[index - 1].end : word.start] if index else ""
    return {
        "text": word.text,
        "role": word.role,
        "pieces": word.pieces,
        "chance": f"{explanation.chance(word.role):g}",
        "hits": [draw.masked[index] for draw in explanation.draws],
        "glued": index > 0 and not gap,
        "line": "\n" in gap,
    }


def _draw(explanation: Explanation, draw: Draw, heaviest: float) -> dict[str, Any]:
    weights: dict[str, str] = {}
    words = []
    for index, (word, masked, weight) in enumerate(
        zip(explanation.words, draw.masked, draw.weights, strict=True)
    ):
        if masked:
            weights[word.role] = f"{weight:.2f}"
        width = round(100 * weight / heaviest) if heaviest else 0
        words.append(
            {
                **_word(explanation, index),
                "masked": masked,
                "weight": f"{weight:.2f}",
                "bar": max(width, 3),
            }
        )
    return {
        "seed": draw.seed,
        "words": words,
        "weights": {role: weights[role] for role in RULES if role in weights},
        "masked": draw.tokens_masked,
        "sum": f"{draw.weight_sum:.2f}",
    }


def _legend(explanation: Explanation) -> list[dict[str, Any]]:
    policy = explanation.policy
    count: dict[str, int] = {}
    for word in explanation.words:
        count[word.role] = count.get(word.role, 0) + 1
    return [
        {
            "role": role,
            "rule": rule.format(words=policy.descriptor_words, weight=policy.template_weight),
            "chance": f"{explanation.chance(role):g}",
            "width": round(100 * explanation.chance(role)),
            "words": count.get(role, 0),
        }
        for role, rule in RULES.items()
        if count.get(role) or role not in ("unknown", "cut")
    ]
