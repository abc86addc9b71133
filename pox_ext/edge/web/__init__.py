"""What people and Prometheus see of the big switch: it reads, and never changes anything."""
