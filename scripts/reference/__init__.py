"""The reference pages written from the code: what can be typed, set, published, raised, asked and imported."""
