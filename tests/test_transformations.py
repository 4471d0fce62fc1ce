"""Every divergence under JAX's transformations, alone and one inside another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import (
    BERNOULLI,
    CATALOGUE,
    SIMPLEX,
    cases,
    equal,
    far,
    members,
    of_rows,
    results,
    ways,
    zeros,
)
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from measure import x64

STEP = 1e-6


def in_float64(test):
    @functools.wraps(test)
    def wide(row):
        with x64(np.float64):
            test(row)

    return wide


def each(condition, **options):
    return of_rows([(row,) for row in CATALOGUE if condition(row)], "row", lambda row: row.name, **options)


def but(*names):
    """For `gate`: all rows but some."""
    return lambda row: row.name not in names


def norm(x):
    """The largest entry of each case."""
    return np.abs(x).max(-1, initial=0) if np.ndim(x) > 1 else np.abs(x)


# ---------------------------------------------------------------- first derivatives


@ways(gate=but("categorical.kl", "categorical.renyi(alpha=0.5)", "simplex.js"))
@in_float64
def test_every_way_to_a_first_derivative_gives_the_gradient(row):
    p, q = (x[members(far)][2] for x in cases(row.family, np.float64))

    def of_pair(p, q):
        return row(p, q)

    @jax.jit
    def firsts(p, q):
        straight = jax.value_and_grad(of_pair, (0, 1))(p, q)
        linearised, linear = jax.linearize(of_pair, p, q)
        _, pull = jax.vjp(jax.checkpoint(of_pair), p, q)
        _, scanned = jax.lax.scan(lambda total, pair: (total + row(*pair), row(*pair)), 0.0, (p[None], q[None]))
        primal, tangent = jax.jvp(of_pair, (p, q), (p, q))
        values = linearised, scanned[0], primal
        both = pull(jnp.ones_like(primal)), jax.jacfwd(of_pair, (0, 1))(p, q)
        return straight, values, (linear(p, q), tangent), both

    (value, gradients), values, tangents, both = firsts(p, q)
    scale = max(norm(np.ravel(x)[None])[0] for x in gradients)
    np.testing.assert_allclose(values, np.full(3, value), 1e-13)
    expected = sum(np.vdot(x, g) for x, g in zip((p, q), gradients, strict=True))
    np.testing.assert_allclose(tangents, np.full(2, expected), 1e-12, 1e-13 * scale)
    for way in both:
        for x, y in zip(way, gradients, strict=True):
            np.testing.assert_allclose(x, y, 1e-12, 1e-13 * scale)


# ---------------------------------------------------------------- second derivatives and beyond


@functools.cache
def curvature(family, verb):
    """(p, q, dp, dq, parameters) -> values and gradients at p, q and on both sides, and Hessian times (dp, dq)."""

    def of_pair(p, q, dp, dq, numbers):
        function = functools.partial(getattr(family.module, verb), **numbers)
        beside = [jnp.stack([x, x + STEP * dx, x - STEP * dx]) for x, dx in ((p, dp), (q, dq))]
        product = jax.jvp(jax.grad(function, (0, 1)), (p, q), (dp, dq))[1]
        return jax.vmap(jax.value_and_grad(function, (0, 1)))(*beside), product

    return jax.jit(jax.vmap(of_pair, (0, 0, 0, 0, None)))


def has_own_curvature(row):
    """Not a function of another row's: one root is like another."""
    others = ("js_distance", "hellinger_distance", *["bhattacharyya"] * (row.family is not BERNOULLI))
    return row.verb not in others


@each(has_own_curvature, gate=but("categorical.kl", "simplex.js", "simplex.amari(alpha=0.3)"))
@in_float64
def test_second_derivatives_are_differences_of_gradients(row):
    p, q = cases(row.family, np.float64)
    dp, dq = np.random.default_rng(0).standard_normal((2, *p.shape))
    if row.family is SIMPLEX:
        dp, dq = dp * p, dq * q
    numbers = {name: np.float64(x) for name, x in row.parameters}
    found = curvature(row.family, row.verb)(p, q, dp, dq, numbers)
    (values, gradients), products = jax.tree.map(np.asarray, found)
    for product, beside in zip(products, gradients, strict=True):
        assert np.isfinite(product[np.isfinite(values[:, 0])]).all()
        # At equality there are only the derivatives of what is smooth there.
        for group in [far, equal] if row.smooth and row.verb != "fisher_rao_distance" else [far]:
            here = members(group)
            gradient, more, less = np.moveaxis(beside[here], 1, 0)
            numeric = (more - less) / (2 * STEP)
            assert (norm(product[here] - numeric) <= 1e-6 * (norm(numeric) + norm(gradient)) + 1e-9).all()


def directional(function, u, v):
    """Its derivative along (u, v), in forward mode and in reverse mode."""

    def forward(p, q):
        return jax.jvp(function, (p, q), (u, v))[1]

    def reverse(p, q):
        value, pull = jax.vjp(function, p, q)
        return sum(jnp.vdot(x, d) for x, d in zip(pull(jnp.ones_like(value)), (u, v), strict=True))

    return forward, reverse


ORDERS = (
    "categorical.kl",
    "categorical.js(weight=0.1)",
    "simplex.js",
    "simplex.amari(alpha=0.3)",
    "bernoulli.kl",
    "bernoulli.renyi(alpha=0.5)",
)


@each(lambda row: row.name in ORDERS, gate=but(ORDERS[0], ORDERS[2], *ORDERS[4:]))  # one of each rule
@in_float64
def test_the_orders_of_a_second_derivative_agree_also_in_a_loop_and_a_third_one_is_finite(row):
    p, q = (x[members(far)][2] for x in cases(row.family, np.float64))

    def looped(p, q):
        return jnp.sum(jax.lax.map(lambda p: row(p, q), p[None]))

    @jax.jit
    def orders(p, q, u, v):
        second = [twice for once in directional(row, u, v) for twice in directional(once, u, v)]
        _, of_gradient = jax.linearize(jax.grad(looped, (0, 1)), p, q)
        along = sum(jnp.vdot(x, d) for x, d in zip(of_gradient(u, v), (u, v), strict=True))
        return [*(d(p, q) for d in second), along], directional(second[1], u, v)[0](p, q)

    second, third = orders(p, q, p / 3, q / 5)
    np.testing.assert_allclose(second, np.full(5, second[0]), 1e-10)
    assert np.isfinite(third)


# ---------------------------------------------------------------- devices, debugging


@ways(gate=but("categorical.js(weight=0.1)", "simplex.kl"))
def test_over_eight_devices_it_is_the_same(row):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    batch = NamedSharding(mesh, P("batch"))
    p, q = (jax.device_put(x[members(far)], batch) for x in cases(row.family, np.float32))
    value, gradients = jax.jit(jax.vmap(jax.value_and_grad(row, (0, 1))))(p, q)
    assert value.sharding.is_equivalent_to(batch, 1)
    expected = [x[members(far)] for x in results(row, np.float32)]
    np.testing.assert_allclose(value, expected[0], 4e-6)
    for x, y in zip(gradients, expected[1:], strict=True):
        assert (norm(np.asarray(x) - y) <= 1e-5 * norm(y) + 1e-7).all()


@each(lambda row: row.name in ORDERS)
def test_a_hunt_for_nans_finds_none(row):
    p, q = (x[members(zeros)] for x in cases(row.family, np.float32))
    with jax.debug_nans(True):
        jax.vmap(jax.value_and_grad(row, (0, 1)))(p, q)  # each operation by itself
