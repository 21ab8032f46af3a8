"""Pictures to be found: trained models to encode with, directories of vectors, and the nearest of them."""
