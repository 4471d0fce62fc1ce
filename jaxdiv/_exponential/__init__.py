"""Exponential families: divided differences along the segment between two laws, and the named members."""
