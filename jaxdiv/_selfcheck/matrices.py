"""Exact linear algebra: matrices as nested tuples of decimals."""

import functools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

Matrix = tuple[tuple[Decimal, ...], ...]
ZERO, HALF, ONE = Decimal(0), Decimal("0.5"), Decimal(1)


def exact(x: Any) -> Any:
    """An array of floating-point numbers as nested tuples of decimals, exactly."""
    return tuple(map(exact, x)) if np.ndim(x) else Decimal(float(x))


def product(a: Matrix, b: Matrix) -> Matrix:
    """The product a b."""
    columns = list(zip(*b, strict=True))
    return tuple(tuple(sum(map(Decimal.__mul__, row, column), ZERO) for column in columns) for row in a)


def diagonal(x: Sequence[Decimal]) -> Matrix:
    """The matrix with this diagonal."""
    return tuple(tuple(y if i == j else ZERO for j in range(len(x))) for i, y in enumerate(x))


def squared(a: Matrix) -> Matrix:
    """The product a a'."""
    return tuple(tuple(sum(map(Decimal.__mul__, row, other), ZERO) for other in a) for row in a)


def lower(a: Matrix) -> Matrix:
    """The lower triangle."""
    return tuple(tuple(x if j <= i else ZERO for j, x in enumerate(row)) for i, row in enumerate(a))


def combined(a: Matrix, s: Decimal, b: Matrix, t: Decimal) -> Matrix:
    """The matrix a s + b t."""
    return tuple(tuple(x * s + y * t for x, y in zip(*rows, strict=True)) for rows in zip(a, b, strict=True))


@functools.cache
def inverted(m: Any) -> Any:
    """The inverse and the determinant of a positive definite matrix, by elimination; else None and nan."""
    d = len(m)
    rows = [[*row, *(ONE if i == j else ZERO for j in range(d))] for i, row in enumerate(m)]
    determinant = ONE
    for i in range(d):
        pivot = rows[i][i]
        if not pivot > 0:
            return None, Decimal("nan")
        determinant *= pivot
        rows[i] = [x / pivot for x in rows[i]]
        for j in range(d):
            if j != i:
                factor = rows[j][i]
                rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return tuple(tuple(row[d:]) for row in rows), determinant


def symmetric(m: Matrix) -> Matrix:
    """The symmetric part."""
    return combined(m, HALF, tuple(zip(*m, strict=True)), HALF)


def times(m: Matrix, x: Sequence[Decimal]) -> tuple[Decimal, ...]:
    """The product m x with a vector."""
    return tuple(sum(map(Decimal.__mul__, row, x), ZERO) for row in m)


def cholesky(m: Matrix) -> Matrix:
    """The lower triangular root of a positive definite matrix."""
    rows: list[list[Decimal]] = []
    for i, row in enumerate(m):
        new: list[Decimal] = []
        for j in range(i + 1):
            rest = row[j] - sum((x * y for x, y in zip(new, (rows[j] if j < i else new), strict=False)), ZERO)
            new.append(rest.sqrt() if i == j else rest / rows[j][j])
        rows.append(new + [ZERO] * (len(m) - i - 1))
    return tuple(map(tuple, rows))


def lower_inverse(m: Matrix) -> Matrix:
    """The inverse of a lower triangular matrix."""
    inverse, _ = inverted(squared(m))
    return product(tuple(zip(*m, strict=True)), inverse)
