"""The stages on a run folder: each reads what those before it wrote, calls its room, and writes its own files."""
