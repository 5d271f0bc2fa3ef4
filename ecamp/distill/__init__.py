"""Distillation: entity-centred statements from reports (METHOD section 1)."""
