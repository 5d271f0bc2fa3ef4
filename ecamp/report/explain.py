"""One self-contained HTML page that shows what masking does to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecamp.text.explain import Draw, Explanation

# Role -> the rule in one sentence, as the legend tells it.
RULES = {
    "entity": "A finding or structure that the lexicon lists. Hidden often, so that the image must name it.",
    "descriptor": "Up to {words} words left of an entity, not across a stop. Always hidden: they say where, "
    "how large, how sure.",
    "template": "Set phrases of denial. They can be guessed without looking, so their loss weighs {weight:g}.",
    "other": "Everything else.",
    "unknown": "No piece of the vocabulary fits. Never hidden.",
    "cut": "Behind the last token that fits into the window. Not seen at all.",
}


def render_explanation(told: Explanation, vocabulary: str) -> str:
    """The page as HTML text; no script, nothing loaded from elsewhere.

    Args:
        vocabulary: Name of the tokenizer, for the page's head.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    template = Environment(
        loader=PackageLoader("ecamp", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("explain.html.j2")  # fmt: skip
    heaviest = max((weight for draw in told.draws for weight in draw.weights), default=0.0)
    return template.render(
        words=[_word(told, at) for at in range(len(told.words))],
        draws=[_draw(told, draw, heaviest) for draw in told.draws],
        legend=_legend(told),
        tokens=told.tokens,
        lexicon=told.policy.lexicon,
        vocabulary=vocabulary,
        step=told.draws[0].step,
    )


def _word(told: Explanation, at: int) -> dict[str, Any]:
    """A word with the number of draws that hide it, and the space before it."""
    word = told.words[at]
    gap = told.text[told.words[at - 1].end : word.start] if at else ""
    return {
        "text": word.text,
        "role": word.role,
        "pieces": word.pieces,
        "chance": f"{told.chance(word.role):g}",
        "hits": [draw.masked[at] for draw in told.draws],
        "glued": at > 0 and not gap,
        "line": "\n" in gap,
    }


def _draw(told: Explanation, draw: Draw, heaviest: float) -> dict[str, Any]:
    weights: dict[str, str] = {}
    words = []
    for at, (word, masked, weight) in enumerate(
        zip(told.words, draw.masked, draw.weights, strict=True)
    ):
        if masked:
            weights[word.role] = f"{weight:.2f}"
        width = round(100 * weight / heaviest) if heaviest else 0
        words.append(
            {**_word(told, at), "masked": masked, "weight": f"{weight:.2f}", "bar": max(width, 3)}
        )
    return {
        "seed": draw.seed,
        "words": words,
        "weights": {role: weights[role] for role in RULES if role in weights},
        "masked": draw.tokens_masked,
        "sum": f"{draw.weight_sum:.2f}",
    }


def _legend(told: Explanation) -> list[dict[str, Any]]:
    policy = told.policy
    count: dict[str, int] = {}
    for word in told.words:
        count[word.role] = count.get(word.role, 0) + 1
    return [
        {
            "role": role,
            "rule": rule.format(words=policy.descriptor_words, weight=policy.template_weight),
            "chance": f"{told.chance(role):g}",
            "width": round(100 * told.chance(role)),
            "words": count.get(role, 0),
        }
        for role, rule in RULES.items()
        if count.get(role) or role not in ("unknown", "cut")
    ]
