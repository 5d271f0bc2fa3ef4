"""Encoders of timm and CLIP behind one feature contract; checkpoints in and out."""
