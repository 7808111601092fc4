"""Residual networks, the classifier around them, ordinal heads, checkpoints and pretrained weights."""
