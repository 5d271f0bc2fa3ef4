"""The published downstream arithmetic, defects included, so that its numbers can be checked.

Each module names the defect that it carries (docs/published-flaws.md). The tasks use its layers and
losses where a user asks for them (`head: conv`, `loss: published`, `head: yolov3`); their recipes
and metrics are mended.
"""
