"""What members are promised; every version that ``publish.py`` publishes has its own."""

VERSION = "1.0"
PERCENT = 10
