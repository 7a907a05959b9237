"""Data splits: where images come from."""
