"""The dashboard and the Prometheus metrics: they read the big switch, and never change it."""
