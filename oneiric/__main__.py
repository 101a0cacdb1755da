"""``python -m oneiric``."""

from oneiric.cli.main import main

main()
