"""Pretext tasks: none, MAE, weights from a file, ECAMP and its ablations."""
