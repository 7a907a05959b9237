"""Parity, agreement, accuracy, gates: the verdict."""
