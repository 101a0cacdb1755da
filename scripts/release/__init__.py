"""How a release is built, tried and described."""
