"""Decoded arrays, splits, letterbox and augmentation."""
