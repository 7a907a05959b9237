"""What can be removed from a traced model, and removing it."""
