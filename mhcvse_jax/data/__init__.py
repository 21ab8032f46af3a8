"""From files to batches: the SCAN layout, captions, concepts and their graph."""
