"""How fast the program is: against the machine's floor, and against PyTorch. README.md has the commands."""
