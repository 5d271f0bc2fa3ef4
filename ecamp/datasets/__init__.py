"""Data sets: the phantom, a user's folder, and one file per public set."""

__results_version__ = 1  # raise when a change of code changes records or pixels
