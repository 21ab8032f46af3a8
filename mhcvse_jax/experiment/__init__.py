"""A configuration made into parts that work together; with the commands, all that sees it."""
