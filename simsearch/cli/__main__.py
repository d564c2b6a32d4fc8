"""`python -m simsearch.cli`: the same command where no script is on the path."""

from simsearch.cli.app import main

main()
