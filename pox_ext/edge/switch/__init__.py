"""The big switch: which flow has to be on which switch, and what has to be done about it."""
