"""How well a model finds: protocols, recall by folds, and the files that say so."""
