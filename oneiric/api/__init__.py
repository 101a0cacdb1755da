"""The control API: its documents, its server and its blocking client."""
