"""What is worth keeping: one published method a file."""
