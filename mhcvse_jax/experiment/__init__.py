"""The parts that a configuration describes; only this room and the commands see the configuration."""
