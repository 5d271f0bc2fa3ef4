"""Tasks: classification, segmentation, detection and retrieval."""
