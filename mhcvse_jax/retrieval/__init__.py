"""Retrieval: encoding a split, ranks and recall."""
