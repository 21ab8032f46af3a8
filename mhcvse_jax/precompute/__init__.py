"""From pictures, or features that others extracted, to a data directory: what the two commands share."""
