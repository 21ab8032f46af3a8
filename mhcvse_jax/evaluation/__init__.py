"""How well a model retrieves: protocols, recall by folds, and the result files."""
