"""The bench: recipe to cells, pre-training, features, runner and run folder."""
