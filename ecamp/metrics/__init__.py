"""Scores from arrays: thin over scikit-learn and pycocotools, with patient-cluster intervals."""
