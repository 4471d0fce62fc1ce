"""Errors in ulps of the dtype under test, against mpmath numbers."""

import functools

import jax
import mpmath as mp
import numpy as np

from jaxdiv._selfcheck import discrete

DIGITS = 100
mp.mp.dps = 60  # of a test that says nothing else; set here alone, as files that set it would change each other's
DTYPES = (np.float32, np.float64)
MPMATH = discrete.Arithmetic(mp.log, mp.exp, mp.sqrt, mp.asin, mp.inf)  # for the definitions of the self-check


def x64(dtype):
    """A context in which arrays of `dtype` exist: jax's switch for float64, by the name this jax has for it."""
    switch = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    return switch(dtype == np.float64)


def digits(function):
    """Runs a function of mpmath numbers with enough digits that its own rounding is nowhere seen."""

    @functools.wraps(function)
    def precise(*args, **kwargs):
        with mp.workdps(DIGITS):
            return function(*args, **kwargs)

    return precise


def exact(x):
    """A floating-point number, or an array of them, as mpmath numbers: nothing is rounded."""
    if isinstance(x, mp.mpf):
        return x
    return [exact(y) for y in x] if np.ndim(x) else mp.mpf(float(x))


def spacing(x, dtype):
    """The distance of neighbouring floats at a number, at the smallest normal number if it is smaller."""
    info = np.finfo(dtype)
    exponent = mp.frexp(x)[1] - 1 if x else info.minexp
    return mp.ldexp(1, int(max(exponent, info.minexp)) - info.nmant)


@digits
def ulps(got, reference, dtype, scale=0):
    """The error of one number in ulps of the reference, or of a larger `scale`.

    An infinity or NaN in the wrong place is an infinite error; a reference that rounds to infinity must be infinite. An
    error below the smallest normal number is none: XLA flushes such numbers to zero.
    """
    info, got = np.finfo(dtype), exact(got)
    if abs(reference) > float(info.max) * (1 + mp.mpf(float(info.epsneg)) / 2):
        reference = mp.sign(reference) * mp.inf
    if not (mp.isfinite(got) and mp.isfinite(reference)):
        return 0.0 if got == reference else float("inf")
    error = abs(got - reference)
    return 0.0 if error < float(info.tiny) else float(error / spacing(max(abs(reference), scale), dtype))


def normwise(got, reference, dtype, scale=0):
    """The worst entry's error in ulps of the largest reference entry, or of a larger `scale`."""
    largest = max([abs(x) for x in reference] + [scale])
    return max(ulps(x, y, dtype, largest) for x, y in zip(got, reference, strict=True))


def worst(got, reference, dtype):
    """The largest error of the entries of an array, each in its own ulps."""
    pairs = zip(np.ravel(got), np.ravel(reference), strict=True)
    return max(ulps(x, y, dtype) for x, y in pairs)
