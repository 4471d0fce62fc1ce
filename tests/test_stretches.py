"""Parts of an axis, and the layout of merged rows."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiv._core import blocks, stretches

SIZES = [(1, 1), (7, 3), (24, 5), (24, 100), (40, 16), (64, 9), (97, 8)]


@pytest.fixture(params=[1, 8], autouse=True)
def _devices(request, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: request.param)


@pytest.mark.parametrize(("n", "most"), SIZES)
@pytest.mark.parametrize("lanes", [1, 4])
def test_parts_cover_an_axis_and_are_joined_to_it(n, most, lanes):
    parts, x = stretches.in_parts(n, most, lanes=lanes), np.arange(3 * n).reshape(n, 3)
    assert parts.groups * parts.local == n
    assert parts.size <= max(1, most // parts.groups)
    found = jnp.stack([stretches.cut(parts, x, i) for i in range(parts.steps)])
    np.testing.assert_array_equal(stretches.join(parts, found), x)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("n", "most"), SIZES)
def test_parts_put_back_and_counted_once_are_the_whole(n, most, axis):
    parts, x = stretches.in_parts(n, most), np.random.default_rng(0).normal(size=(n, n)).astype(np.float32)
    copy, total = jnp.zeros_like(x), 0
    for i in range(parts.steps):
        part = stretches.cut(parts, x, i, axis)
        copy = stretches.put(parts, copy, part, i, axis)
        total += np.sum(np.asarray(stretches.once(parts, part, i, axis), np.float64))
    np.testing.assert_array_equal(copy, x)
    np.testing.assert_allclose(total, np.sum(x.astype(np.float64)), rtol=1e-6)


def test_an_axis_without_entries_has_one_empty_part():
    parts = stretches.in_parts(0, 5)
    assert parts == (1, 0, 0, 1)
    assert stretches.join(parts, jnp.zeros((1, 0, 2))).shape == (0, 2)


def _merged_one_by_one(shapes):
    """The layout by a loop over the leading axes."""
    sizes, kinds = [], []
    for axis, n in enumerate(np.broadcast_shapes(*(shape[:-1] for shape in shapes))):
        kind = [shape[axis] == n for shape in shapes]
        if n > 1 and kinds and kinds[-1] == kind:
            sizes[-1] *= n
        elif n > 1:
            sizes.append(n)
            kinds.append(kind)
    return sizes, kinds


def test_the_layout_merges_neighbouring_axes_that_the_same_arrays_vary_along():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        lead = rng.integers(1, 4, rng.integers(0, 6))
        varies = rng.random((rng.integers(1, 4), len(lead))) < 0.6
        shapes = [(*np.where(some, lead, 1).tolist(), 5) for some in varies]
        sizes, kinds = blocks._layout(shapes)
        assert (sizes, kinds) == _merged_one_by_one(shapes)
        assert math.prod(sizes) == math.prod(np.broadcast_shapes(*(shape[:-1] for shape in shapes)))
        assert all(a != b for a, b in itertools.pairwise(kinds))
