"""How much of a lexicon a tokenizer can ever match, and how long its reports become."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from ecamp.text.lexicon import Lexicon, form_tokens


@dataclass(frozen=True)
class Coverage:
    """Forms by entity (templates under their own name), in the lexicon's order.

    Attributes:
        usable: Name -> forms that the tokenizer can write.
        lost: Name -> forms that need [UNK] and never match.
    """

    usable: dict[str, list[str]]
    lost: dict[str, list[str]]

    @property
    def lost_forms(self) -> list[str]:
        """All forms that never match."""
        return [form for forms in self.lost.values() for form in forms]

    @property
    def lost_entities(self) -> list[str]:
        """Entities of which no form can match."""
        return [n for n, forms in self.usable.items() if not forms and n != TEMPLATES]

    @property
    def total(self) -> int:
        """Number of forms."""
        return sum(map(len, self.usable.values())) + len(self.lost_forms)


TEMPLATES = "(templates)"


def measure_coverage(lexicon: Lexicon, tokenizer: Tokenizer) -> Coverage:
    """Try every form of a lexicon, templates included, under a tokenizer."""
    groups = {**lexicon.entities, TEMPLATES: lexicon.templates}
    known = {
        form: bool(form_tokens(tokenizer, form)) for forms in groups.values() for form in forms
    }
    return Coverage(
        {name: [form for form in forms if known[form]] for name, forms in groups.items()},
        {name: [form for form in forms if not known[form]] for name, forms in groups.items()},
    )
