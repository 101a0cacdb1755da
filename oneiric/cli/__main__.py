"""``python -m oneiric.cli``."""

from oneiric.cli.main import main

main()
