"""What `compare` consists of: reading sources, gathering seeds, checking likeness, intervals, ensembles, formats."""
