"""The messages of controllers to the big switch, and the answers to them."""
