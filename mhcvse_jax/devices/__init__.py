"""Devices, processes and signals: what a run computes on."""
