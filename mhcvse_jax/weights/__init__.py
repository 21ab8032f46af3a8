"""Reads and writes other programs' weights."""
