"""The merge algebra and its verifier."""
