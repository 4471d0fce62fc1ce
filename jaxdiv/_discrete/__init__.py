"""Divergences of discrete distributions: the terms, and sums of them over logits and probabilities."""
