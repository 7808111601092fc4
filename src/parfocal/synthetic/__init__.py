"""Synthetic data sets in the formats of the source documents."""
