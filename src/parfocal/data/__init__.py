"""From label files and image files to batches of pixels."""
