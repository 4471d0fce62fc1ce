"""What holds at the edges, for every public function: at infinite values, at the ends of parameters, of all floats."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import with_all
from measure import x64

import jaxdiv
from jaxdiv import (
    bernoulli,
    categorical,
    clustering,
    elementary,
    estimators,
    exponential_family,
    fused,
    gaussian,
    losses,
    mixture,
    objectives,
    simplex,
)
from jaxdiv._core import functions

# ---------------------------------------------------------------- where a value is infinite


def of_form(form, scale, loc, d=2):
    """A law of any form of independent components of one scale, in float32 numbers."""
    loc, eye = jnp.full(d, loc, jnp.float32), jnp.eye(d, dtype=jnp.float32)
    rest = {
        gaussian.Normal: (jnp.full(d, scale),),
        gaussian.NormalLogScale: (jnp.full(d, np.log(scale)),),
        gaussian.LowRankNormal: (jnp.full((d, 1), 0.5 * scale), jnp.full(d, scale**2)),
        gaussian.MultivariateNormal: (scale * eye,),
        gaussian.CovarianceNormal: (scale**2 * eye,),
        gaussian.PrecisionNormal: (scale**-2 * eye,),
        gaussian.NaturalNormal: (scale**-2 * eye,),
        gaussian.MatrixNormal: (scale * eye[:1, :1], eye),
    }[form]
    first = loc * scale**-2 if form is gaussian.NaturalNormal else loc
    first = loc[None] if form is gaussian.MatrixNormal else first
    return form(*(jnp.asarray(x, jnp.float32) for x in (first, *rest)))


FORMS = [
    gaussian.Normal,
    gaussian.NormalLogScale,
    gaussian.LowRankNormal,
    gaussian.MultivariateNormal,
    gaussian.CovarianceNormal,
    gaussian.PrecisionNormal,
    gaussian.NaturalNormal,
    gaussian.MatrixNormal,
]
UNBOUNDED = {
    "kl": gaussian.kl,
    "jeffreys": gaussian.jeffreys,
    "cross_entropy": gaussian.cross_entropy,
    "chi2": gaussian.chi2,
    "renyi": functools.partial(gaussian.renyi, alpha=2.0),
    "amari": functools.partial(gaussian.amari, alpha=2.0),
    "geometric_js": gaussian.geometric_js,
}


DIRECT = {"kl", "jeffreys", "cross_entropy", "geometric_js"}
PAIRS = {
    "means that are too far": ((1.0, 1e16), (1e-6, 0.0)),
    "an integral that diverges": ((2.0, 1.0), (1.0, 0.0)),
}
# Of independent components scales may be as they like.
COLLAPSED = {
    "a law that has collapsed": (gaussian.NormalLogScale(jnp.zeros(2), jnp.zeros(2)),
                                 gaussian.NormalLogScale(jnp.zeros(2), jnp.full(2, -90.0))),
    "laws that have both": (gaussian.NormalLogScale(jnp.ones(2), jnp.full(2, -95.0)),
                            gaussian.NormalLogScale(jnp.zeros(2), jnp.full(2, -90.0))),
    "scales at both ends": (gaussian.Normal(jnp.ones(2), jnp.full(2, 1e37)),
                            gaussian.Normal(jnp.zeros(2), jnp.full(2, 1e-37))),
}  # fmt: skip


Cases = dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]


def is_infinite(value):
    return np.any(np.isinf(value))


def slopes(f, size, *arguments):
    """The value, and what each mode makes of tangents and cotangents of a size."""
    value, pull = jax.vjp(f, *arguments)
    push = functools.partial(jax.jvp, f, arguments)
    tangents = jax.tree.map(lambda x: jnp.full_like(x, size), arguments)
    return value, (pull(jnp.full_like(value, size)), push(tangents)[1])


def moved_and_still(program, *arguments):
    """The value, and slopes of sizes 1 and 0, by one program `(size, *arguments) -> (value, slopes)`."""
    (value, moved), (_, still) = (jax.device_get(program(jnp.float32(size), *arguments)) for size in (1, 0))
    return value, moved, still


def by_kernel(f):
    """A program of a function of numbers for many of them."""
    return jax.jit(lambda size, *x: jax.vmap(functools.partial(slopes, f, size))(*x))


def faults(value, moved, still):
    """What is wrong with the slopes of an infinite value."""
    found = {
        "no infinite value": not is_infinite(value) or np.any(np.isnan(value)),
        "a slope is infinite or nan": not all(np.all(np.isfinite(x)) for x in jax.tree.leaves(moved)),
        "0 of a slope is not 0": any(np.any(x) for x in jax.tree.leaves(still)),
    }
    return [name for name, is_so in found.items() if is_so]


def assert_still(cases):
    """Cases by name: a function, and floating-point arguments at which it is infinite."""

    assert_still_by(
        program_of({name: f for name, (f, _) in cases.items()}), {name: x for name, (_, x) in cases.items()}
    )


def program_of(functions_by_name):
    """A program of all values and slopes."""

    @jax.jit
    def program(size, arguments):
        found = {name: slopes(f, size, *arguments[name]) for name, f in functions_by_name.items()}
        return tuple({name: x[i] for name, x in found.items()} for i in range(2))

    return program


def assert_still_by(program, arguments):
    value, moved, still = moved_and_still(program, arguments)
    wrong = {name: faults(value[name], moved[name], still[name]) for name in arguments}
    assert not {name: x for name, x in wrong.items() if x}


OF_NORMAL_LAWS = program_of(UNBOUNDED)  # one compilation for all laws of a form


def assert_normal_laws_still(laws):
    assert_still_by(OF_NORMAL_LAWS, jax.tree.map(lambda x: np.asarray(x, np.float32), laws))


SHORT = gaussian.NormalLogScale, gaussian.MultivariateNormal


@pytest.mark.parametrize(
    "form", [*SHORT, *with_all(*(form for form in FORMS if form not in SHORT))], ids=lambda form: form.__name__
)
def test_an_infinite_divergence_of_normal_laws_has_finite_slopes_in_every_mode(form):
    (far, diverging) = ([of_form(form, *law) for law in pair] for pair in PAIRS.values())
    assert_normal_laws_still({name: far if name in DIRECT else diverging for name in UNBOUNDED})


@pytest.mark.parametrize("name", COLLAPSED)
def test_an_infinite_divergence_of_collapsed_laws_has_finite_slopes_in_every_mode(name):
    assert_normal_laws_still(dict.fromkeys(UNBOUNDED, COLLAPSED[name]))


A, B = jnp.array([0.0, 1.0, -jnp.inf, 0.5]), jnp.array([0.3, -jnp.inf, 1.0, 0.1])
P, Q = jnp.array([0.25, 0.75, 0.0]), jnp.array([0.5, 0.0, 0.5])
HALF, TWO = jnp.float32(0.5), jnp.float32(2)


def keyword(f, name):
    return lambda p, q, x: f(p, q, **{name: x})


def discrete_cases():
    yields = {}
    for family, p, q in ((categorical, A, B), (simplex, P, Q), (bernoulli, jnp.float32(0.0), jnp.float32(jnp.inf))):
        for verb in ("kl", "jeffreys", "chi2", "cross_entropy"):
            yields[f"{family.__name__}.{verb}"] = getattr(family, verb), (p, q)
        for verb, alpha in itertools.product(("renyi", "amari"), (1.0, 2.0)):
            f = keyword(getattr(family, verb), "alpha")
            yields[f"{family.__name__}.{verb} {alpha}"] = f, (p, q, jnp.float32(alpha))
    apart = jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])
    yields["categorical.bhattacharyya"] = categorical.bhattacharyya, apart
    yields["categorical.kl of a temperature"] = keyword(categorical.kl, "temperature"), (A, B, TWO)
    yields["categorical.renyi of a temperature"] = (
        lambda p, q, t: categorical.renyi(p, q, alpha=2.0, temperature=t),
        (A, B, TWO),
    )
    return yields


def loss_cases():
    yields = {}
    x, y = B[None], A[None]
    for name in ("forward_kl", "jeffreys", "cross_entropy"):
        yields[name] = getattr(losses, name), (x, y)
        yields[f"{name} of a temperature"] = keyword(getattr(losses, name), "temperature"), (x, y, TWO)
    yields["reverse_kl"] = losses.reverse_kl, (x, y)
    for name in ("renyi", "amari"):
        for alpha in (1.0, 2.0):
            yields[f"{name} {alpha}"] = keyword(getattr(losses, name), "alpha"), (y, x, jnp.float32(alpha))
    yields["rescaled_js"] = keyword(losses.rescaled_js, "beta"), (x, y, jnp.float32(0))
    yields["distillation"] = keyword(losses.distillation, "temperature"), (x, y, TWO)
    yields["forward_kl_with_probs"] = losses.forward_kl_with_probs, (x, jax.nn.softmax(y))
    yields["cross_entropy_with_probs"] = losses.cross_entropy_with_probs, (x, jax.nn.softmax(y))
    yields["cross_entropy_with_labels"] = lambda x: losses.cross_entropy_with_labels(x, jnp.array([1])), (x,)
    yields["bernoulli_kl"] = losses.bernoulli_kl, (jnp.array([jnp.inf]), jnp.array([0.0]))
    loc, wide, narrow = jnp.ones((1, 2)), jnp.full((1, 2), 90.0), jnp.full((1, 2), -90.0)
    for name in ("standard_normal_kl", "standard_normal_kl_per_component"):
        yields[name] = getattr(losses, name), (loc, wide)
    for name in ("gaussian_kl", "gaussian_kl_per_component"):
        yields[name] = getattr(losses, name), (loc, wide, loc, narrow)
        yields[f"{name} of a narrow prior"] = getattr(losses, name), (loc, 0 * loc, 0 * loc, narrow)
    return yields


def objective_cases():
    x, y = B[None], A[None]
    kl, label = losses.forward_kl, jnp.array([1])
    return {
        "softened": (lambda x, y, t: objectives.softened(kl, temperature=t)(x, y), (x, y, TWO)),
        "symmetric": (objectives.symmetric(kl), (x, y)),
        "hard_and_soft": (lambda x, y, w: objectives.hard_and_soft(kl, weight=w)(x, y, label), (x, y, HALF)),
        "consistency": (lambda x, y, w: objectives.consistency(losses.cross_entropy, weight=w)(x, y, y), (x, y, HALF)),
        "annealed": (lambda x, y, w: objectives.annealed(kl, lambda _: w)(0, x, y), (x, y, HALF)),
        "free_bits": (objectives.free_bits, (jnp.array([jnp.inf]), HALF)),
    }


def estimator_cases():
    far = jnp.array([-1.0, -120.0, -2.0]), jnp.array([-1.5, -1.0, -2.5])
    none = jnp.array([-jnp.inf, -1.0]), jnp.array([-1.0, -1.0])
    found: Cases = {"k2": (estimators.k2, none), "k3": (estimators.k3, far), "k3 at -inf": (estimators.k3, none)}
    low, high = jnp.array([-14.0], jnp.float16), jnp.array([-1.0], jnp.float16)
    found["k3 of half precision"] = estimators.k3, (low, high)
    for name, divergence in estimators.BY_NAME.items():
        numbers = (jnp.float32(0.25),) * len(divergence.parameters)

        def f(p, q, *numbers, name=name, names=divergence.parameters):
            return estimators.f_divergence(name, p, q, **dict(zip(names, numbers, strict=True)))

        found[f"f_divergence {name}"] = f, (*none, *numbers)
    return found


def other_cases():
    wide, narrow = jnp.array(88.0), jnp.array(-80.0)
    laws = {name: getattr(exponential_family, name) for name in ("kl", "jeffreys", "chi2")}
    found: Cases = {
        f"exponential_family.{name}": (functools.partial(f, jnp.exp), (wide, narrow)) for name, f in laws.items()
    }
    for verb in ("renyi", "amari"):
        f = functools.partial(getattr(exponential_family, verb), lambda eta: -jnp.log(-eta))
        found[f"exponential_family.{verb}"] = keyword(f, "alpha"), (jnp.array(-1.0), jnp.array(-3.0), TWO)
    for kernel in (elementary.kl_div, elementary.rel_entr):
        found[f"elementary.{kernel.__name__}"] = kernel, (jnp.float32(1), jnp.float32(0))
    return found


@pytest.mark.parametrize(
    "cases",
    [objective_cases, estimator_cases, other_cases, *with_all(discrete_cases, loss_cases)],
    ids=lambda f: f.__name__,
)
def test_an_infinite_value_has_finite_slopes_in_every_mode(cases):
    assert_still(cases())


LEFT, RIGHT = jnp.array([[0.5, 0.5], [0.25, 0.75]]), jnp.array([[1.0, 0.0], [0.5, 0.5], [0.1, 0.9]])
TEACHER = jnp.array([[0.0, 0.0], [0.0, -jnp.inf], [0.0, -jnp.inf]])
MEANS = {
    "losses.mean": lambda w: losses.mean(jax.vmap(simplex.kl, (None, 0))(LEFT[0], RIGHT), weights=w),
    "pairwise_mean": lambda w: jaxdiv.pairwise_mean(simplex.kl, LEFT, RIGHT, weights=w)[0],
    "fused": lambda w: fused.mean_linear_divergence(
        jnp.ones((3, 2)), jnp.eye(2), TEACHER, losses.forward_kl, bias=jnp.array([0.0, -jnp.inf]), weights=w
    ),
    "clustering.kmeans": lambda w: (
        clustering.kmeans(simplex.kl, RIGHT, 1, key=jax.random.key(0), weights=w, side="left").cost
    ),
}


@pytest.mark.parametrize("name", MEANS)
def test_an_infinite_mean_has_finite_slopes_in_its_weights(name):
    value, slope = jax.value_and_grad(MEANS[name])(jnp.array([0.5, 0.25, 0.0]))
    assert np.all(np.isfinite(slope)), (value, slope)
    assert np.isinf(value) == (name != "clustering.kmeans")


# ---------------------------------------------------------------- at the ends of parameters


N1, N2 = gaussian.Normal(0.0, 1.0), gaussian.Normal(1.0, 2.0)
LAWS = {  # of simplex, numbers whose sum is exactly one
    "gaussian": (gaussian, (N1, N2)),
    "gaussian back": (gaussian, (N2, N1)),
    "gaussian, by root": (
        gaussian,
        tuple(
            gaussian.MultivariateNormal(jnp.full(2, x), jnp.array([[y, 0], [0.3, 1.0]]))
            for x, y in ((0.0, 1.0), (1.0, 2.0))
        ),
    ),
    "poisson": (exponential_family, (jnp.log(1.0), jnp.log(2.0))),
    "exponential": (exponential_family, (-1.0, -3.0)),
    "categorical": (categorical, (jnp.log(jnp.array([0.2, 0.8])), jnp.log(jnp.array([0.5, 0.5])))),
    "simplex": (simplex, (jnp.array([0.25, 0.75]), jnp.array([0.5, 0.5]))),
    "simplex, q with a zero": (simplex, (jnp.array([0.125, 0.375, 0.5]), jnp.array([0.5, 0.5, 0.0]))),
    "simplex, p with a zero": (simplex, (jnp.array([0.5, 0.5, 0.0]), jnp.array([0.125, 0.375, 0.5]))),
    "bernoulli": (bernoulli, (0.3, -1.0)),
}
PARAMETERS = {
    "js": ("weight", (0.0, 1.0)),
    "geometric_js": ("weight", (0.0, 1.0)),
    "renyi": ("alpha", (0.0, 1.0, 2.0)),
    "amari": ("alpha", (0.0, 1.0, 2.0, -1.0)),
}
FAMILY_OF = {"poisson": jnp.exp, "exponential": lambda eta: -jnp.log(-eta)}


def of_pair(name, verb, p, q):
    """A verb without parameters of two laws in float64."""
    f = getattr(LAWS[name][0], verb)
    f = functools.partial(f, FAMILY_OF[name]) if name in FAMILY_OF else f
    return f(*jax.tree.map(lambda y: jnp.asarray(y).astype(jnp.float64), (p, q)))


def of_parameter(name, verb):
    """A verb of two fixed laws as a function of its parameter."""
    module, (p, q) = LAWS[name]
    f = getattr(module, verb)
    if name in FAMILY_OF:
        f = functools.partial(f, FAMILY_OF[name])
    return lambda x: f(*jax.tree.map(lambda y: jnp.asarray(y).astype(x.dtype), (p, q)), **{PARAMETERS[verb][0]: x})


ENDS = [(name, verb) for name, (module, _) in LAWS.items() for verb in PARAMETERS if hasattr(module, verb)]


def in_both_modes(f, x):
    return f(x), jax.grad(f)(x), jax.jvp(f, (x,), (jnp.ones_like(x),))[1]


ONLY_WITH_ALL = ("gaussian back", "gaussian, by root", "exponential", "categorical", "simplex", "bernoulli")
ONLY_WITH_ALL += ("simplex, p with a zero", "poisson")


@pytest.mark.parametrize("name", [x for x in LAWS if x not in ONLY_WITH_ALL] + with_all(*ONLY_WITH_ALL))
def test_at_the_ends_of_a_parameter_value_and_slope_are_limits(name):
    verbs = [verb for of, verb in ENDS if of == name]
    h = 1e-6
    sides = (-2 * h, -h, h, 2 * h)

    @jax.jit
    def program(points):
        there = {
            verb: jax.vmap(functools.partial(in_both_modes, of_parameter(name, verb)))(x) for verb, x in points.items()
        }
        beside = {
            verb: jax.vmap(jax.vmap(of_parameter(name, verb)))(jnp.stack([x + by for by in sides]))
            for verb, x in points.items()
        }
        steps = {verb: dict(zip(sides, x, strict=True)) for verb, x in beside.items()}
        return there, steps, [of_pair(name, "kl", *pair) for pair in (LAWS[name][1], LAWS[name][1][::-1])]

    with x64(np.float64):
        points = {verb: jnp.asarray(PARAMETERS[verb][1], jnp.float64) for verb in verbs}
        there, steps, kls = jax.device_get(program(points))
    for verb in verbs:
        for i, x in enumerate(points[verb]):
            value, *found = (part[i] for part in there[verb])
            assert not np.isnan(value), (verb, x)
            if np.isinf(value):
                assert found == [0, 0], (verb, x)
                continue
            # One-sided differences of second order, on a side where there are values. Those of js converge slowly where
            # a chi-squared divergence is infinite: its limits are the KL divergences.
            quotients = [(-3 * value + 4 * steps[verb][by][i] - steps[verb][2 * by][i]) / (2 * by) for by in (h, -h)]
            if verb == "js":
                quotients = [(1 - 2 * i) * kls[i]]
                quotients = quotients if np.isfinite(quotients[0]) else [0.0]
            finite = [y for y in quotients if np.isfinite(y)]
            assert finite
            for slope in found:
                assert np.isfinite(slope), (verb, x)
                # A limit that is infinite is 0 by choice: differences grow without bound there.
                error = min(abs(slope - y) / max(1, abs(y)) for y in finite)
                assert error < 1e-4 or (slope == 0 and max(map(abs, finite)) > 10), (verb, x, slope, finite)


def test_the_slopes_of_js_at_weights_0_and_1_are_the_kl_divergences():
    slope = jax.vmap(jax.grad(lambda w: gaussian.js(N1, N2, weight=w)))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(slope, [gaussian.kl(N1, N2), -gaussian.kl(N2, N1)], 1e-6)
    np.testing.assert_allclose(slope, [0.4431, -1.3069], 2e-4)


# ---------------------------------------------------------------- collapsed laws


def test_values_of_a_law_that_has_collapsed():
    p, q = (gaussian.NormalLogScale(0.0, x) for x in (0.0, -90.0))
    right = {
        "kl": np.inf, "jeffreys": np.inf, "cross_entropy": np.inf, "geometric_js": np.inf, "total_variation": 1,
        "fisher_rao_distance": 90 * np.sqrt(2), "squared_wasserstein2": 1, "wasserstein2_distance": 1, "chi2": np.inf,
        "bhattacharyya": 0.5 * (90 - np.log(2)), "squared_hellinger": 1, "js": np.log(2),
    }  # fmt: skip
    found = jax.jit(lambda p, q: {name: getattr(gaussian, name)(p, q) for name in right})(p, q)
    for name, value in right.items():
        np.testing.assert_allclose(found[name], value, 1e-6, err_msg=name)


SYMMETRIC_VERBS = ("total_variation", "fisher_rao_distance", "bhattacharyya", "chernoff", "squared_hellinger", "js")
ALL_VERBS = (*SYMMETRIC_VERBS, "kl", "jeffreys", "cross_entropy", "squared_wasserstein2", "geometric_js", "chi2")


@pytest.mark.gate
def test_far_apart_scales_are_those_of_float64():
    """Pairs of laws whose scales and means are as far apart as float32 goes, by both independent forms."""
    logs = np.array(
        [(0, 0, 0, -90), (1, 0, 0, -90), (1, -95, 0, -90), (0, -95, 0, -90), (0, 80, 0, -80), (5, 43, 1, 44)],
        np.float32,
    )

    def every(p, q):
        return {
            name: (getattr(gaussian, name)(p, q), jax.grad(getattr(gaussian, name), (0, 1))(p, q)) for name in ALL_VERBS
        }

    def of_logs(a, b, c, d):
        return every(gaussian.NormalLogScale(a, b), gaussian.NormalLogScale(c, d))

    def of_scales(a, b, c, d):
        return every(gaussian.Normal(a, b), gaussian.Normal(c, d))

    representable = logs[(np.abs(logs[:, 1::2]) < 87).all(1)].astype(np.float64)
    scales = representable.copy()
    scales[:, 1::2] = np.exp(scales[:, 1::2])
    scales = scales.astype(np.float32)
    for of, rows in ((of_logs, logs), (of_scales, scales)):
        narrow = jax.jit(jax.vmap(of))(*rows.T)
        with x64(np.float64):
            wide = jax.device_get(jax.jit(jax.vmap(of))(*rows.T.astype(np.float64)))
        for name in ALL_VERBS:
            truth = wide[name][0]
            truth = np.where(truth > np.finfo(np.float32).max, np.inf, truth)
            truth = np.where(np.abs(truth) < np.finfo(np.float32).tiny, 0, truth)
            np.testing.assert_allclose(narrow[name][0], truth, 4e-6, err_msg=f"{of.__name__} {name}")
            assert all(np.all(np.isfinite(x[np.isinf(truth)])) for x in jax.tree.leaves(narrow[name][1])), name
            assert not any(np.any(np.isnan(x)) for x in jax.tree.leaves(narrow[name][1])), name


# ---------------------------------------------------------------- nan in, nan out; and forwards


def test_chi2_of_a_nan_mean_is_nan_and_still_where_infinite():
    p, q = gaussian.Normal(jnp.array([jnp.nan, 0.0]), 2.0), gaussian.Normal(jnp.zeros(2), 1.0)
    assert np.isnan(gaussian.chi2(p, q))
    value, slope = jax.jvp(lambda x: gaussian.chi2(gaussian.Normal(0.0, x), gaussian.Normal(0.0, 1.0)), (2.0,), (1.0,))
    assert (value, slope) == (np.inf, 0)


# ---------------------------------------------------------------- every kernel over all floats


BIG, TINY = np.finfo(np.float32).max, np.finfo(np.float32).tiny
FLOATS = np.array(
    [
        0,
        TINY / 4,
        TINY,
        1e-30,
        1e-19,
        1e-7,
        0.1,
        0.5,
        0.9,
        1,
        1.5,
        2,
        3,
        40,
        87,
        89,
        1e5,
        1e10,
        1e19,
        1e30,
        BIG,
        np.inf,
    ],
    np.float32,
)
UNARY = {
    "expm1x": True, "expm1": True, "log1p_ratio": False, "log1p": False,
    "root": False, "squared_arcsinh_root": False, "enlarged": True, "log_of_enlarged": False, "finite_or_zero": True,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_a_kernel_of_one_number_has_no_nan_of_any_float(name):
    x = np.concatenate([FLOATS, -FLOATS]) if UNARY[name] else FLOATS
    assert_clean(name, x, *moved_and_still(by_kernel(getattr(functions, name)), x))


TERNARY = ("log_ratio", "bregman", "difference")


@pytest.mark.parametrize("name", TERNARY)
def test_a_kernel_of_two_numbers_and_what_they_differ_in_has_no_nan_of_any_floats(name):
    x, y = (np.ravel(a) for a in np.meshgrid(FLOATS[:-1], FLOATS[:-1]))
    f = getattr(functions, name)

    def of(x, y):
        return f(x, y, functions.log_ratio(x, y, x - y) if name == "difference" else x - y)

    assert_clean(name, np.stack([x, y], 1), *moved_and_still(by_kernel(of), x, y))


def test_kernels_of_a_product_have_no_nan_of_any_floats():
    signed = np.concatenate([FLOATS, -FLOATS])
    finite = signed[np.isfinite(signed)]
    x, y = (np.ravel(a) for a in np.meshgrid(finite, finite))
    kept = (np.abs(x) < 1e15) & (np.abs(x.astype(np.float64) * y) < 80)  # a slope is as large as x^2
    for f in (functions.scaled_expm1, functions.times):
        found = moved_and_still(by_kernel(f), x[kept], y[kept])
        assert_clean(f.__name__, np.stack([x, y], 1)[kept], *found)


def assert_clean(name, x, value, moved, still):
    # Subnormal numbers count as the zeros XLA:CPU takes them for.
    valid = ~np.isnan(value)
    wrong = {
        "value": np.isnan(value) & np.isfinite(x).reshape(len(x), -1).all(1),
        "slope": valid & np.any([np.isnan(y) for y in jax.tree.leaves(moved)], 0),
        "still": valid & np.any([y != 0 for y in jax.tree.leaves(still)], 0),
    }
    wrong = {what: x[where] for what, where in wrong.items() if where.any()}
    assert not wrong, (name, wrong)


# Without `--all` by draws: tests of mixtures have the gradients of quadratures.
@pytest.mark.parametrize("by_draws", [True, *with_all(False)])
def test_the_interval_of_mixtures_of_narrow_components_has_its_gradient(by_draws):
    def of_one(loc, scale):
        return mixture.GaussianMixture(jnp.zeros(1), gaussian.Normal(jnp.reshape(loc, 1), jnp.full(1, scale)))

    @jax.jit
    @jax.vmap
    def slopes_of(loc):
        key = jax.random.key(0) if by_draws else None
        return jax.grad(lambda x: mixture.kl_interval(of_one(x, 0.05), of_one(0.0, 0.0025), key=key).estimate)(loc)

    loc = jnp.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(slopes_of(loc), loc / 0.0025**2, 1e-3)


def test_an_estimate_by_quadrature_lies_within_its_interval():
    p = mixture.GaussianMixture(
        jnp.array([-jnp.inf, 1.0124]), gaussian.Normal(jnp.array([-1.049, 2.9836]), jnp.array([1.1194, 1.0675]))
    )
    q = mixture.GaussianMixture(
        jnp.array([0.6938, -0.8944]), gaussian.Normal(jnp.array([24.4273, -31.3356]), jnp.array([4.9323, 0.5979]))
    )
    for interval in (mixture.kl_interval(p, q), mixture.js_interval(p, q), mixture.kl_interval(q, p)):
        assert interval.lower <= interval.estimate <= interval.upper
    np.testing.assert_allclose(mixture.kl_interval(p, q).estimate, 10.69065, 2e-6)
