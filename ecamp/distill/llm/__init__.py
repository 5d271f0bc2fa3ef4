"""The `llm` distiller: statements from a language model behind an OpenAI-compatible endpoint."""

from ecamp.distill.llm.distiller import LLMDistiller, LLMDistillerConfig

__all__ = ["LLMDistiller", "LLMDistillerConfig"]
