"""Distillation: entity-centred statements from reports (arXiv 2312.13316, section 3.1)."""
