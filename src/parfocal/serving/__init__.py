"""Serve trained networks over HTTP: an API for programs, and a page for a browser."""
