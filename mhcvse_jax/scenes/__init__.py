"""The built-in data set: pictures drawn by the program, described by a grammar."""
