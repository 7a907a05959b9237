"""Exported files, their manifests, and the child processes that make them."""
