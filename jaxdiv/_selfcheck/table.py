"""The rows of the self-check's table: errors of computed numbers, in ulps of the true ones."""

import decimal
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

# Textbook forms lose up to 33 digits to cancellation, for nearly equal confident laws and an order near 1. 60 digits
# leave enough. Without traps log 0 is infinite, as it should be. Gradients that are nan beside an infinite value are
# not compared.
DIGITS = decimal.Context(prec=60, traps=[])
FIELDS = ("name", "dtype", "value_ulps", "gradient_ulps", "negatives", "nans", "rows_per_second", "ok")


def _ulps(got, exact, scale):
    """The error in ulps of `scale`. If `exact` is nan, any finite number is right."""
    if exact.is_finite() and math.isfinite(got):
        return float(abs(Decimal(float(got)) - exact)) / float(np.spacing(got.dtype.type(scale)))
    return 0.0 if (exact.is_nan() and math.isfinite(got)) or float(got) == float(exact) else math.inf


def row(
    title: str,
    numbers: np.ndarray,
    truths: Sequence[Sequence[Decimal]],
    scales: Sequence[Sequence[Decimal]],
    promised: tuple[float, float],
    speed: float,
    name: str,
) -> dict[str, Any]:
    """A row of the table from `numbers` [copies, n, 1 + entries of gradients], and truths and scales of each pair."""
    # A compiler may treat copies differently; the largest error is at the least or the largest number.
    ends = [np.min(numbers, 0), np.max(numbers, 0)]
    with decimal.localcontext(DIGITS):
        rows = [row for end in ends for row in zip(end, truths, scales, strict=True)]
        value_ulps, *gradient_ulps = np.max([list(map(_ulps, *row)) for row in rows], 0).tolist()
    above = name == "js" and np.any(numbers[..., 0] > numbers.dtype.type(math.log(2)))
    ulps = math.inf if above else value_ulps, max(gradient_ulps)
    negative = (numbers[..., :1] < 0) & (np.asarray([truth[0] >= 0 for truth in truths])[:, None])
    faults = [int(np.sum(np.any(x, (0, 2)))) for x in (negative, np.isnan(numbers))]
    ok = all(x <= y for x, y in zip(ulps, promised, strict=True)) and not any(faults)
    return dict(zip(FIELDS, (title, numbers.dtype.name, *ulps, *faults, speed, ok), strict=True))
