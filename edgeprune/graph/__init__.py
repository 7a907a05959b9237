"""A model traced once: its operators, the dimensions that they share, its layers and what these cost by name."""
