"""Serving: trained networks behind an address, for programs and for a page."""
