"""Parity, agreement, accuracy, limits: the verdict."""
