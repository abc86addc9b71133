"""The big switch: decides which flow entries each switch has to hold, and what it is sent."""
