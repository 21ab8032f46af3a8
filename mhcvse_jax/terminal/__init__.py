"""Progress and shell completion."""
