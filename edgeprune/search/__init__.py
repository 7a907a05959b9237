"""Choosing a subnet within a budget: allocators, what judges them, and the search that a device corrects."""
