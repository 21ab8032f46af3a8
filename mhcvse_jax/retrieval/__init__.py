"""Retrieval: encoding a split, ranks, recall, and the protocols that say what is compared with what."""
