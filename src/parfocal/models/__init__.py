"""The networks, and the classifier that wraps one with all it needs to read an image."""
