"""Searching pictures: trained models that encode, directories of vectors, and nearest neighbours."""
