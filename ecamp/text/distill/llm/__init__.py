"""The `llm` distiller: statements from a language model behind an OpenAI-compatible endpoint."""

from ecamp.text.distill.llm.distiller import LLMDistiller

__all__ = ["LLMDistiller"]
