"""Benchmarks: jaxdiv beside its peers, in one interleaved run."""
