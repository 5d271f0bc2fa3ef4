"""Audit of data sets: leaks in splits, near copies, shortcuts."""
