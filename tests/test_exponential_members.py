"""The named families of `exponential_family`, against mpmath at the exact numbers."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from marks import with_all
from measure import DIGITS, digits, exact, normwise, ulps, x64

from jaxdiv import exponential_family
from jaxdiv._gaussian.nodes import NODES_56, WEIGHTS_56

MEMBERS = {
    "poisson": exponential_family.poisson,
    "exponential": exponential_family.exponential,
    "gamma": exponential_family.gamma,
    "beta": exponential_family.beta,
    "dirichlet": exponential_family.dirichlet,
}
OFTEN = [("poisson", "js"), ("gamma", "js"), ("dirichlet", "js"), ("beta", "renyi")]
OPTIONS = {"renyi": {"alpha": 0.25}, "amari": {"alpha": 0.25}}

# Pairs of laws: near, far and equal; small and large; alike in the mean; one entry that dwarfs the others.
LAWS = {
    "poisson": [((1e6,), (1.000001e6,)), ((1e-3,), (30.0,)), ((3.0,), (3.00001,)), ((1e6,), (2e6,)), ((2.0,), (2.0,))],
    "gamma": [
        ((1e6, 3.0), (1.00001e6, 3.00003)),
        ((1e4, 154.408), (9999.99, 154.4078)),
        ((1e-3, 2.0), (1.1e-3, 2.0001)),
        ((30.0, 218.0), (0.7, 14154.0)),
        ((1e-3, 6.6), (0.037, 1e8)),
        ((2.0, 1.0), (3.5, 1.5)),
        ((1e5, 1.0), (7.0, 1e-4)),
        ((2.0, 1.0), (2.0, 1.0)),
    ],
    "beta": [
        ((1e6, 2e6), (1.00002e6, 2.00003e6)),
        ((1e-3, 2e-3), (1.001e-3, 2e-3)),
        ((1e-3, 5.0), (1e-3, 7.0)),
        ((9023.0, 0.0825), (54.0, 0.0825)),
        ((27.4, 35109.0), (27.4, 8.1e6)),
        ((0.5, 0.5), (20.0, 3.0)),
        ((1e4, 1e4), (1.0, 1.0)),
        ((3.0, 4.0), (3.0, 4.0)),
    ],
    "dirichlet": [
        ((1e4, 1e4, 1e4), (1.0, 1.0, 1.0)),
        ((1e6, 2e6, 1e-3), (1.000001e6, 2.000002e6, 1.00001e-3)),
        ((1e-3, 1e-3, 5.0), (1e-3, 1e-3, 7.0)),
        ((2e6, 3e5, 4e5), (3.1e6, 4.65e5, 6.2001e5)),
        ((0.3, 2.0, 1.0), (0.3001, 2.0, 0.9999)),
        ((11589.0, 14364.0, 6854.0), (35.6, 2.56e6, 255.0)),
        ((1e-3, 1e-3, 1e-3), (2.0, 1e-3, 0.5)),
        ((3.0, 4.0, 5.0), (3.0, 4.0, 5.0)),
    ],
}
LAWS["exponential"] = LAWS["poisson"]


def log_normalizer(name, p):
    if name == "exponential":
        return -mp.log(p[0])
    if name == "gamma":
        return mp.loggamma(p[0]) - p[0] * mp.log(p[1])
    return sum(map(mp.loggamma, p)) - mp.loggamma(sum(p))


def log_affinity(name, p, q, s):
    if name == "poisson":
        return p[0] ** s * q[0] ** (1 - s) - s * p[0] - (1 - s) * q[0]
    m = [s * a + (1 - s) * b for a, b in zip(p, q, strict=True)]
    f = functools.partial(log_normalizer, name)
    return f(m) - s * f(p) - (1 - s) * f(q)


def slopes_of_kl(name, p, q):
    """KL(p, q) by its definition, and its derivatives by p and by q."""
    if name in ("poisson", "exponential"):
        (a,), (b,) = (p, q) if name == "poisson" else (q, p)
        kl, by_first, by_last = a * mp.log(a / b) - a + b, mp.log(a / b), 1 - a / b
        if name == "poisson":
            return kl, [by_first], [by_last]
        return a / b - 1 - mp.log(a / b), [(b - a) / b**2], [1 / b - 1 / a]
    if name == "gamma":
        (a, r), (b, t) = p, q
        kl = (a - b) * mp.digamma(a) - mp.loggamma(a) + mp.loggamma(b) + b * mp.log(r / t) + a * (t - r) / r
        by_p = [(a - b) * mp.psi(1, a) + (t - r) / r, b / r - a * t / r**2]
        return kl, by_p, [mp.digamma(b) - mp.digamma(a) + mp.log(r / t), a / r - b / t]
    f = functools.partial(log_normalizer, name)
    means = [[mp.digamma(a) - mp.digamma(sum(law)) for a in law] for law in (p, q)]
    change = [a - b for a, b in zip(p, q, strict=True)]
    kl = f(q) - f(p) + mp.fdot(change, means[0])
    by_p = [d * mp.psi(1, a) - sum(change) * mp.psi(1, sum(p)) for d, a in zip(change, p, strict=True)]
    return kl, by_p, [b - a for a, b in zip(*means, strict=True)]


@functools.cache
def program(name, of):
    """Values and slopes of a batch: one compilation for all laws of a dtype."""
    return jax.jit(jax.vmap(jax.value_and_grad(verb(name, of), (0, 1))))


@digits
def definition(name, verb, p, q):
    p, q, half = exact(p), exact(q), mp.mpf(1) / 2
    if verb == "js":
        # By the quadrature that float64 has: its nodes are good to 3e-15 for any two laws.
        line = ((w, mp.mpc(half, t)) for t, w in zip(NODES_56, WEIGHTS_56, strict=True))
        return mp.fsum(w * (1 - mp.re(mp.exp(log_affinity(name, p, q, s)))) for w, s in line)
    at = {"bhattacharyya": half, "renyi": half / 2, "amari": half / 2}.get(verb)
    return {
        "jeffreys": lambda: slopes_of_kl(name, p, q)[0] + slopes_of_kl(name, q, p)[0],
        "bhattacharyya": lambda: -log_affinity(name, p, q, at),
        "renyi": lambda: log_affinity(name, p, q, at) / (at - 1),
        "amari": lambda: -mp.expm1(log_affinity(name, p, q, at)) / (at * (1 - at)),
    }[verb]()


def batch(name, dtype):
    """The laws along a first axis, and the parameters as a family takes them."""
    laws = [np.array(x, dtype) for x in zip(*LAWS[name], strict=True)]
    return laws, [tuple(x.T) if name in ("gamma", "beta") else x.squeeze(-1) if x.shape[1] == 1 else x for x in laws]


def verb(name, verb):
    return functools.partial(getattr(exponential_family, verb), MEMBERS[name], **OPTIONS.get(verb, {}))


@pytest.mark.parametrize("dtype", [np.float32, *with_all(np.float64)])
@pytest.mark.parametrize("name", ["poisson", "exponential", "gamma", "dirichlet", *with_all("beta")])
def test_kl_is_its_definition_to_16_ulps_and_its_gradient_to_32(name, dtype):
    laws, parameters = batch(name, dtype)
    with x64(dtype):
        found = program(name, "kl")(*parameters)
        values, slopes = jax.tree.map(np.asarray, found)
    columns = [np.stack(x, -1) if isinstance(x, tuple) else np.reshape(x, laws[0].shape) for x in slopes]
    for value, *found, p, q in zip(values, *columns, *laws, strict=True):
        with mp.workdps(DIGITS):
            truth, *others = slopes_of_kl(name, exact(p), exact(q))
        assert ulps(value, truth, dtype) < 16
        for slope, other in zip(found, others, strict=True):
            assert normwise(slope, other, dtype) < 32
        if np.array_equal(p, q):
            assert value == 0
            assert not np.any(found)


@pytest.mark.parametrize("dtype", [np.float32, *with_all(np.float64)])
@pytest.mark.parametrize(
    ("name", "of"),
    [
        pytest.param(name, of, marks=[pytest.mark.gate] * ((name, of) not in OFTEN))
        for name in MEMBERS
        for of in ("js", "jeffreys", "renyi", "amari", "bhattacharyya")
    ],
)
def test_a_divergence_is_its_definition_to_16_ulps(name, of, dtype):
    laws, parameters = batch(name, dtype)
    with x64(dtype):
        if dtype is np.float32:
            values = np.asarray(jax.jit(jax.vmap(verb(name, of)))(*parameters))
        else:  # by the program of the differences below
            values = np.asarray(program(name, of)(*parameters)[0])
    for value, p, q in zip(values, *laws, strict=True):
        truth = mp.mpf(0) if np.array_equal(p, q) else definition(name, of, p, q)
        assert ulps(value, truth, dtype) < 16


# ---------------------------------------------------------------- properties


def test_rates_of_0_are_certain_of_0():
    rates = jnp.array([0.0, 2.0, 0.0]), jnp.array([3.0, 0.0, 0.0])
    values, slopes = jax.vmap(jax.value_and_grad(verb("poisson", "kl"), (0, 1)))(*rates)
    assert np.array_equal(values, [3, np.inf, 0])
    assert np.all(np.isfinite(slopes))
    # The affinity at s is that of exp(-3) and 1, or of 1 and exp(-2).
    np.testing.assert_allclose(jax.vmap(verb("poisson", "renyi"))(*rates), [3, 2 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(verb("poisson", "chernoff"))(*rates), [3, 2, 0], rtol=1e-6)
    # The best weight is at an end, and stays there.
    slopes = jax.vmap(jax.grad(verb("poisson", "chernoff"), (0, 1)))(*rates)
    np.testing.assert_allclose(slopes, [[0, 1, 0], [1, 0, 0]], rtol=1e-6)
    p = np.exp(-3.0)  # the mixture with the certain law
    js = 0.5 * (-np.log((1 + p) / 2) + p * np.log(2 * p / (1 + p)) + (1 - p) * np.log(2))
    np.testing.assert_allclose(verb("poisson", "js")(0.0, 3.0), js, rtol=1e-6)


def test_parameters_outside_of_their_range_are_nan_in_their_own_row():
    laws = jnp.array([2.0, 2.0, 0.0, jnp.nan]), jnp.array([1.0, -1.0, 1.0, 1.0])
    values = jax.vmap(verb("gamma", "kl"), (0, None))(laws, (1.0, 1.0))
    assert np.array_equal(np.isnan(values), [False, True, True, True])


VERBS = ("kl", "jeffreys", "js", "renyi", "amari", "bhattacharyya", "chernoff", "chi2")
WRONG = [("poisson", -1.0, 0.0), ("poisson", -1.0, 1.0), ("exponential", -1.0, -2.0)]
WRONG += [("gamma", (2.0, -1.0), (3.0, -2.0))]


@functools.cache
def every_verb(name):
    return jax.jit(lambda p, q: {of: verb(name, of)(p, q) for of in VERBS})


@pytest.mark.parametrize(("name", "p", "q"), [*WRONG[:1], *with_all(*WRONG[1:])], ids=str)
def test_parameters_outside_of_their_range_are_nan_for_every_verb(name, p, q):
    found = every_verb(name)(p, q)
    assert {of for of, value in found.items() if np.isnan(value)} == set(VERBS)


@pytest.mark.gate
def test_rates_far_from_1_are_those_of_their_quotient():
    units = jnp.array([1.0, 2.0**-100, 2.0**100])
    of = jax.vmap(
        jax.value_and_grad(lambda u, p, q: verb("gamma", "kl")((2.0, p * u), (3.0, q * u)), (1, 2)), (0, None, None)
    )
    values, slopes = of(units, 1.0, 3.0)
    assert np.all(values == values[0])
    assert all(np.all(x == x[0]) for x in slopes)
    value, slopes = jax.value_and_grad(verb("exponential", "chernoff"), (0, 1))(1.0, 1e25)
    np.testing.assert_allclose([value, *slopes], [52.511719, -0.9826283, 9.826284e-26], rtol=1e-6)


# Laws far apart, what they give, and slopes where these are not below the rounding of others.
EXTREME = [
    ("exponential", "kl", 1e20, 1e-20, 91.1034, (1e-20, -1e20)),
    ("exponential", "kl", 1e-20, 1e20, np.inf, (0, 0)),
    ("exponential", "kl", 3e38, 3e38, 0, (0, 0)),
    ("exponential", "js", 1e20, 1e-20, np.log(2), None),
    ("poisson", "bhattacharyya", 1e-3, 1e36, 5e35, (-1.5811e19, 0.5)),
    ("poisson", "bhattacharyya", 1e-30, 1e10, 5e9, (-5e19, 0.5)),
    ("gamma", "bhattacharyya", (1e5, 1.0), (1e-15, 1.0), 34676.7, None),
    ("gamma", "kl", (1e-15, 1e10), (1e15, 1e-10), 1e30, None),
    ("gamma", "chernoff", (1e5, 1.0), (1e-15, 1.0), 34676.7, None),
]


@pytest.mark.parametrize(("name", "of", "p", "q", "value", "slopes"), [*EXTREME[:7], *with_all(*EXTREME[7:])])
def test_what_lies_between_laws_far_apart_does_not_overflow(name, of, p, q, value, slopes):
    found, of_laws = jax.value_and_grad(verb(name, of), (0, 1))(p, q)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    assert np.all(np.isfinite(jax.tree.leaves(of_laws)))
    if slopes:
        np.testing.assert_allclose(of_laws, slopes, rtol=1e-3)


@pytest.mark.gate
@pytest.mark.parametrize("of", ["js", "renyi", "bhattacharyya", "chernoff", "jeffreys", "amari"])
@pytest.mark.parametrize("name", MEMBERS)
def test_gradients_are_differences_of_values(name, of):
    step = 1e-6
    with x64(np.float64):
        _, parameters = batch(name, np.float64)
        _, slopes = program(name, of)(*parameters)
        direction = jax.tree.map(lambda x: x * np.random.default_rng(0).uniform(-1, 1, x.shape), parameters)
        beside = [jax.tree.map(lambda x, dx, h=h: x + h * dx, parameters, direction) for h in (step, -step)]
        more, less = (np.asarray(program(name, of)(*x)[0]) for x in beside)
        terms = jax.tree.map(lambda g, dx: np.reshape(g * dx, (len(more), -1)), list(slopes), direction)
    terms = np.concatenate(jax.tree.leaves(terms), 1)
    np.testing.assert_allclose(terms.sum(1), (more - less) / (2 * step), 1e-5, 1e-6 * np.abs(terms).max())


def test_js_of_rates_is_the_sum_over_counts():
    a, b = mp.mpf(3), mp.mpf(5)
    p, q = ([mp.exp(-rate) * rate**n / mp.factorial(n) for n in range(80)] for rate in (a, b))
    js = mp.fsum(x * mp.log(2 * x / (x + y)) + y * mp.log(2 * y / (x + y)) for x, y in zip(p, q, strict=True)) / 2
    np.testing.assert_allclose(verb("poisson", "js")(3.0, 5.0), float(js), rtol=1e-6)


def test_where_the_integral_diverges_the_value_is_inf_with_finite_gradients():
    # 2 p - q is a rate below 0.
    value, slopes = jax.jit(jax.value_and_grad(verb("exponential", "chi2"), (0, 1)))(1.0, 3.0)
    assert value == jnp.inf
    assert not np.any(slopes)


def test_components_are_independent_and_broadcast():
    p, q = (jnp.array([2.0, 0.3]), 1.0), (jnp.array([3.0, 0.4]), 1.5)
    parts = jax.vmap(verb("gamma", "kl"), ((0, None), (0, None)))(p, q)
    np.testing.assert_allclose(verb("gamma", "kl")(p, q), jnp.sum(parts), rtol=1e-6)


@pytest.mark.parametrize(("of", "scale"), [("kl", 1.0), pytest.param("js", 0.25, marks=pytest.mark.gate)])
def test_a_hessian_at_equal_laws_is_the_information_of_fisher(of, scale):
    numbers = [1.5, 0.3, 40.0]
    with x64(np.float64):
        alpha = jnp.array(numbers)
        hessian = jax.jit(jax.hessian(functools.partial(verb("dirichlet", of), alpha)))(alpha)
        information = np.diag([float(mp.psi(1, x)) for x in numbers]) - float(mp.psi(1, sum(numbers)))
        np.testing.assert_allclose(hessian, scale * information, rtol=1e-9)


def test_a_log_normaliser_is_its_definition():
    for name, law in (("exponential", (2.0,)), ("gamma", (2.5, 3.0)), ("beta", (2.5, 3.0)), ("dirichlet", (1.0, 2.5))):
        parameters = {"exponential": law[0], "dirichlet": jnp.array(law)}.get(name, law)
        np.testing.assert_allclose(MEMBERS[name](parameters), float(log_normalizer(name, law)), rtol=1e-6)
    assert exponential_family.poisson(jnp.array([1.0, 2.5])) == 3.5


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_float32_rounded_once(dtype):
    p, q = dtype(0.5), dtype(1.25)
    value = verb("poisson", "kl")(p, q)
    assert value.dtype == dtype
    assert value == verb("poisson", "kl")(p.astype(jnp.float32), q.astype(jnp.float32)).astype(dtype)


def test_errors_name_what_came():
    with pytest.raises(
        TypeError, match=r"^exponential_family.kl takes a law of gamma as a pair \(concentration, rate\); "
    ):
        exponential_family.kl(exponential_family.gamma, 1.0, (1.0, 2.0))
    with pytest.raises(
        ValueError, match=r"^exponential_family.kl takes concentration \[k\] .*got p\[\] and q\[\].*vmap"
    ):
        exponential_family.kl(exponential_family.dirichlet, 1.0, 2.0)
    with pytest.raises(ValueError, match=r"got p.a\[3\], p.b\[3\] and q.a\[2\], q.b\[2\]"):
        exponential_family.js(exponential_family.beta, (jnp.ones(3),) * 2, (jnp.ones(2),) * 2)
    with pytest.raises(TypeError, match=r"floating-point numbers; got p int32\[\]"):
        exponential_family.kl(exponential_family.poisson, jnp.int32(1), jnp.int32(2))
    with pytest.raises(TypeError, match=r"named family .*exponential_family.gamma"):
        exponential_family.js(jax.scipy.special.gammaln, jnp.array(2.0), jnp.array(3.0))
