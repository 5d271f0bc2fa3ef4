"""Encoders of timm and CLIP behind one feature contract; checkpoints in and out."""

__results_version__ = 1  # raise when a change of code changes features
