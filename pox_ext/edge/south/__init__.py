"""One real switch: its connection, its ports, and what is installed on it."""
