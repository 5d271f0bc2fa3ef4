"""Training: pre-training loop, heads, optimiser, schedule and memory."""
