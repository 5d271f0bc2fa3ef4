"""The authors' arithmetic, defects included: pre-training and downstream tasks."""
