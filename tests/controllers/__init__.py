"""Whole runs: real upstream controllers and real hosts, all started as a user starts them."""
