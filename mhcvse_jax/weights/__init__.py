"""Other programs' weights, read and written."""
