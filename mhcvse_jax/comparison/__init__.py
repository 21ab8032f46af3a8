"""What `compare` is made of: sources read, seeds gathered, likeness checked, intervals, ensembles, table formats."""
