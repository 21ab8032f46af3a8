"""From files to batches: SCAN's layout, captions, concepts and their graph."""
