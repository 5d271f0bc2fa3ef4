"""Pretext tasks: none, MAE, weights from a file, ECAMP and its ablations."""

__results_version__ = 1  # raise when a change of code changes weights
