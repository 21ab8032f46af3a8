"""Reads and writes the weights of other programs."""
