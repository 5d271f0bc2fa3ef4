"""The published downstream arithmetic, defects included, so that its numbers can be checked.

Each module says which defect it carries (ids F1 ... F19: the list of flaws of the published
evaluations). Nothing here is used by the tasks themselves; their recipes are mended.
"""
