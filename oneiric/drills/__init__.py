"""Incidents rehearsed: a sandbox, a real fault, the alert, the runbook's steps, and proof that they cure it."""
