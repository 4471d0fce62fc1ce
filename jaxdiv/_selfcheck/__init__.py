"""`python -m jaxdiv` compares divergences on this device with their definitions in many digits.

They are those of `categorical`, `simplex`, `bernoulli` and `gaussian`.
"""
