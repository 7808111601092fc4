"""From a recipe and prepared pixels to trained weights."""
