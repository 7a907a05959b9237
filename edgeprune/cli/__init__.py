"""The command line: one file a command. Nothing heavy is imported before a command runs."""

from edgeprune.cli.app import app, main

__all__ = ["app", "main"]
