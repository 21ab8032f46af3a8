"""All measurements on a machine with a GPU and without a package index, in five calls of under nine minutes."""
