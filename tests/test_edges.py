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


def gaussian_cases():
    for form in FORMS:
        # A ratio of scales whose square is infinite, and a law that has collapsed as far as its form can say.
        pairs = [(of_form(form, 1e12, 0.0), of_form(form, 1e-12, 0.0)), (of_form(form, 1.0, 1.0), of_form(form, 1e-18, 0.0))]
        for verb, pair in itertools.product(UNBOUNDED, pairs):
            yield f"gaussian.{verb} of {form.__name__}", UNBOUNDED[verb], pair


def test_print():
    bad = 0
    for form in FORMS:
        pairs = [(of_form(form, 1e12, 0.0), of_form(form, 1e-12, 0.0)), (of_form(form, 1.0, 1.0), of_form(form, 1e-18, 0.0))]

        @jax.jit
        def run(p, q):
            out = {}
            for name, f in UNBOUNDED.items():
                v, pull = jax.vjp(f, p, q)
                zeros = jax.tree.map(jnp.zeros_like, (p, q))
                ones = jax.tree.map(jnp.ones_like, (p, q))
                out[name] = v, pull(jnp.ones_like(v)), pull(jnp.zeros_like(v)), jax.jvp(f, (p, q), zeros)[1], jax.jvp(f, (p, q), ones)[1]
            return out

        for i, (p, q) in enumerate(pairs):
            for name, (v, g, g0, t0, t1) in run(p, q).items():
                fl = lambda t: [bool(np.all(np.isfinite(x))) for x in jax.tree.leaves(t)]
                z = [bool(np.all(np.asarray(x) == 0)) for x in jax.tree.leaves((g0, t0))]
                ok = float(v) == np.inf and all(fl(g)) and all(fl(t1)) and all(z)
                if not ok:
                    bad += 1
                    print(form.__name__, i, name, v, "finite", fl(g), fl(t1), "zeros", z)
    print("bad", bad)
