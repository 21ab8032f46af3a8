"""Variants of a test: all on the first Python that CI tests, some on the second."""

import pytest


def variants(values, *, first_python):
    """The values of a parameter; those in `first_python` have that marker: each is a program of its own to compile."""
    return [pytest.param(value, marks=pytest.mark.first_python) if value in first_python else value for value in values]
