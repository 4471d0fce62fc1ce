"""`python -m jaxdiv`: every divergence on this device beside its definition in many digits."""
