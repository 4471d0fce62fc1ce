"""`python -m jaxdiv` compares every divergence on this device with its definition in many digits."""
