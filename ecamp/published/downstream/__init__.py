"""The published downstream arithmetic, defects included, so that its numbers can be checked.

Each module says which defect it carries (ids F1 ... F19: the list of flaws of the published
evaluations). The tasks use its layers and losses where a user asks for them (`head: conv`,
`loss: published`, `head: yolov3`); their recipes and metrics are mended.
"""
