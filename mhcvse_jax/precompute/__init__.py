"""From pictures, or from features that others extracted, to a data directory: what two commands share."""
