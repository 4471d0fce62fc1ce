"""Double precision inside a `with`, as the installed jax has it, and errors in units of the last place."""

import jax
import numpy as np


def double():
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()


def ulps(values, truths, dtype):
    """The largest error of values against truths, in spacings of `dtype`; infinite where one is NaN."""
    values, truths = np.asarray(values, np.float64), np.asarray(truths, np.float64)
    exact = (values == truths) | (np.isnan(values) & np.isnan(truths))
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.where(exact, 0, np.abs(values - truths) / np.abs(truths) / np.finfo(dtype).eps)
    return float(np.max(np.where(np.isnan(errors), np.inf, errors), initial=0))
