"""Read settings files and environment into the settings tree, and watch them."""
