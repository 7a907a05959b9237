"""`python -m edgeprune`: the command line, where its script is not on the PATH."""

from edgeprune.cli import main

main()
