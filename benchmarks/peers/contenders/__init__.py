"""One module for each library, which a worker loads from its file: the same four functions, as far as it has them."""
