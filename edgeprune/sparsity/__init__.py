"""Sparse inference: weights with many zeros stored, checked and run as such."""
