"""Training: the step, its optimiser, the loop around it and the checkpoints."""
