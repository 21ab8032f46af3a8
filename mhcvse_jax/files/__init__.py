"""Files: written atomically, read safely."""
