"""Whole runs: real upstream controllers, real hosts, everything started as a user starts it."""
