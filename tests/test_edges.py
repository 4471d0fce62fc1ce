"""What holds at the edges, for every public function: at infinite values, at the ends of parameters, of all floats."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from measure import x64

from jaxdiv import (
    bernoulli,
    categorical,
    elementary,
    estimators,
    exponential_family,
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
    "scales at both ends": (gaussian.Normal(jnp.ones(2), jnp.full(2, 1e37)), gaussian.Normal(jnp.zeros(2), jnp.full(2, 1e-37))),
}  # fmt: skip


def is_infinite(value):
    return jnp.any(jnp.isinf(value))


def slopes(f, *arguments):
    """The value, and what each mode makes of tangents and cotangents of 1 and of 0."""
    value, pull = jax.vjp(f, *arguments)
    push = functools.partial(jax.jvp, f, arguments)
    ones, zeros = (jax.tree.map(like, arguments) for like in (jnp.ones_like, jnp.zeros_like))
    one, zero = jnp.ones_like(value), jnp.zeros_like(value)
    return value, (pull(one), push(ones)[1]), (pull(zero), push(zeros)[1])


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
    found = jax.jit(lambda arguments: {name: slopes(f, *arguments[name]) for name, (f, _) in cases.items()})(
        {name: arguments for name, (_, arguments) in cases.items()}
    )
    wrong = {name: faults(*x) for name, x in found.items()}
    assert not {name: x for name, x in wrong.items() if x}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_an_infinite_divergence_of_normal_laws_has_finite_slopes_in_every_mode(form):
    (far, diverging) = ([of_form(form, *law) for law in pair] for pair in PAIRS.values())
    assert_still({
        name: (f, far if name in DIRECT else diverging) for name, f in UNBOUNDED.items()
    })  # fmt: skip


@pytest.mark.parametrize("name", COLLAPSED)
def test_an_infinite_divergence_of_collapsed_laws_has_finite_slopes_in_every_mode(name):
    assert_still({verb: (f, COLLAPSED[name]) for verb, f in UNBOUNDED.items()})


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
    yields["categorical.renyi of a temperature"] = lambda p, q, t: categorical.renyi(p, q, alpha=2.0, temperature=t), (A, B, TWO)
    yields["simplex.mutual_information"] = simplex.kl, (P, Q)
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
    yields["rescaled_js"] = keyword(losses.rescaled_js, "weight"), (x, y, jnp.float32(0))
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
    yields["mean"] = lambda v, w: losses.mean(v, weights=w), (jnp.array([1.0, jnp.inf]), jnp.ones(2))
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
    found = {"k2": (estimators.k2, none), "k3": (estimators.k3, far), "k3 at -inf": (estimators.k3, none)}
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
    found = {f"exponential_family.{name}": (functools.partial(f, jnp.exp), (wide, narrow)) for name, f in laws.items()}
    for verb in ("renyi", "amari"):
        f = functools.partial(getattr(exponential_family, verb), lambda eta: -jnp.log(-eta))
        found[f"exponential_family.{verb}"] = keyword(f, "alpha"), (jnp.array(-1.0), jnp.array(-3.0), TWO)
    one = jnp.zeros(1)
    for part in ("estimate", "upper"):

        def f(loc, scale, logits, part=part):
            p = mixture.GaussianMixture(logits, gaussian.Normal(loc, scale))
            q = mixture.GaussianMixture(one, gaussian.Normal(one, one + 1e-6))
            return getattr(mixture.kl_interval(p, q), part)

        found[f"mixture.kl_interval {part}"] = f, (one + 1e25, one + 1, one)
    for name in ("kl_div", "rel_entr"):
        if hasattr(elementary, name):
            found[f"elementary.{name}"] = getattr(elementary, name), (jnp.float32(1), jnp.float32(0))
    return found


@pytest.mark.parametrize(
    "cases", [discrete_cases, loss_cases, objective_cases, estimator_cases, other_cases], ids=lambda f: f.__name__
)
def test_an_infinite_value_has_finite_slopes_in_every_mode(cases):
    assert_still(cases())
