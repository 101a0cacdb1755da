"""Rules, alerts and configurations for Prometheus and Alertmanager, as data, in two profiles."""
