"""From run folders to figures and one page."""
