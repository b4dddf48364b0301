"""``python -m sessionstore.cli``."""

from sessionstore.cli.entry import main

main()
