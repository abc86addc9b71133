"""What controllers send to the big switch, and what they are answered."""
