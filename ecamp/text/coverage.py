"""Coverage of a lexicon by a tokenizer: which forms it can ever match."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from ecamp.text.lexicon import Lexicon, form_tokens


@dataclass(frozen=True)
class Coverage:
    """Surface forms by entity, in the lexicon's order; templates under `TEMPLATES`.

    Attributes:
        usable: Name -> forms that the tokenizer can encode.
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
        """Entities without any form that can match."""
        return [name for name, forms in self.usable.items() if not forms and name != TEMPLATES]

    @property
    def total(self) -> int:
        """Number of forms."""
        return sum(map(len, self.usable.values())) + len(self.lost_forms)


TEMPLATES = "(templates)"


def measure_coverage(lexicon: Lexicon, tokenizer: Tokenizer) -> Coverage:
    """Try every form of a lexicon, templates included, under a tokenizer."""
    groups = {**lexicon.entities, TEMPLATES: lexicon.templates}
    matches = {
        form: bool(form_tokens(tokenizer, form)) for forms in groups.values() for form in forms
    }
    return Coverage(
        {name: [form for form in forms if matches[form]] for name, forms in groups.items()},
        {name: [form for form in forms if not matches[form]] for name, forms in groups.items()},
    )
