"""What a report is made of: curves, matches, hubs, attention, concepts; arrays and files in, one page out."""
