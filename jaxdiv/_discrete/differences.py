"""Differences of logits as exact sums of two floats, divided by a temperature, which may be None."""

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import split


def divided_by(x: jax.Array, temperature: jax.Array | None) -> jax.Array:
    return x if temperature is None else x / temperature


def two_difference(x, y):
    """x - y as an exact sum of two floats, for finite x - y."""
    high = x - y
    back = x - high
    return high, (x - (high + back)) + (back - y)


def _divided(high, low, temperature):
    """(high + low) / temperature as a sum of two floats."""
    x = high / temperature
    (t_high, t_low), (x_high, x_low) = split(temperature), split(x)
    remainder = (((high - x_high * t_high) - x_high * t_low) - x_low * t_high) - x_low * t_low
    return x, (remainder + low) / temperature


def less(x, largest, temperature):
    """(x - largest) / T as a sum of two floats."""
    high, low = two_difference(x, largest)
    return (high, low) if temperature is None else _divided(high, low, temperature)


def exp_less(x, largest, temperature):
    """exp((x - largest) / T), corrected for the rounding of the difference; 0 for x = -inf."""
    high, low = less(x, largest, temperature)
    value = jnp.exp(high)
    return jnp.where(value == 0, 0, value + value * low)


def log_quotient(a, b, pivot, temperature):
    """((b - a) - pivot) / T; infinite where exactly one of the logits is -inf, and 0 where both are."""
    high, low = two_difference(b, a)
    r = divided_by((high - pivot[0]) + (low - pivot[1]), temperature)
    return jnp.where(jnp.abs(high) < jnp.inf, r, jnp.where(a == b, 0, high))
