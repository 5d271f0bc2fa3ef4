"""The authors' arithmetic, defects included: pre-training and downstream tasks."""

__results_version__ = 1  # raise when a change of code changes weights or scores
