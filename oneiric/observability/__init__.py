"""What is reported: the catalog of events, and the sinks that write them."""
