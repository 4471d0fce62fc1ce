"""Divergences of normal laws: linear algebra that loses nothing near equality, and the spectral identity."""
