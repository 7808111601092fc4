"""Trained networks in the formats that others run, each compared with its run before it counts as written."""
