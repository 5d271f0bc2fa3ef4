"""Distillation: entity-centred statements from reports (arXiv 2312.13316, section 3.2)."""

__results_version__ = 1  # raise when a change of code changes statements
