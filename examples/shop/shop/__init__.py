"""A shop that answers what things cost: the example that ``make run`` starts."""
