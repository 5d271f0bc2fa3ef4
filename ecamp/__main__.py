"""`python -m ecamp`."""

from ecamp.cli import main

main()
