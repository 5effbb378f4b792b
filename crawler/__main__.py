"""`python -m crawler` is `crawler`."""

from crawler.cli import main

main()
