"""The rows of families: divergences between two laws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import softmax
from jax.scipy.special import entr

from bench.every import plain
from bench.every.plain import OF_LOGS, of_logits, sum_last
from bench.every.row import Row, first, logits, normal, positive, probabilities, with_numbers
from jaxdiv import bernoulli, categorical, exponential_family, gaussian, mixture, simplex

BOTH = (0, 1)


# ---------------------------------------------------------------- discrete laws


def _several(n, rows, k):
    return (normal(rows, n, k, scale=2.0),)


def _counts(rows, k):
    counts = np.random.default_rng(0).poisson(5, (rows, k)).astype(np.float32)
    return jnp.asarray(counts), jnp.full(k, 1 / k)


def _joint(n, k):
    return (softmax(normal(n, k * k)).reshape(n, k, k),)


def _discrete(module, formulas, entropy, make, sizes, **options):
    name = module.__name__.split(".")[-1]
    for verb, formula in formulas.items():
        if hasattr(module, verb):
            ours, of = with_numbers(module, verb)
            yield Row(f"{name}.{verb}", of, jax.vmap(ours), formula, make, sizes, BOTH, **options)
    yield Row(f"{name}.entropy", "", jax.vmap(module.entropy), entropy, first(make), sizes, (0,), **options)


def _of_categorical():
    formulas = {verb: of_logits(x) for verb, x in OF_LOGS.items()} | {"chernoff": plain.chernoff_of_logits}
    yield from _discrete(categorical, formulas, plain.entropy_of_logits, logits, ((2048, 128), (256, 32000)))
    yield Row(
        "categorical.js_of",
        "",
        jax.vmap(categorical.js_of),
        lambda x: plain.js_of_several(softmax(x)),
        _several,
        ((4, 512, 128), (8, 16, 32000)),
        (0,),
    )


def _two_logits(n):
    """Apart, so that nothing cancels in the peers."""
    x = normal(n)
    return x, x + 1 + jnp.abs(normal(n, seed=1))


def _of_bernoulli():
    formulas = {verb: plain.of_bernoulli(x) for verb, x in OF_LOGS.items()} | {"chernoff": plain.chernoff_of_bernoulli}
    return _discrete(bernoulli, formulas, plain.entropy_of_bernoulli, _two_logits, ((65536,), (1000000,)))


def _of_simplex():
    sizes, formulas = ((1024, 256), (16384, 64)), plain.OF_PROBABILITIES
    row = functools.partial(Row, sizes=sizes, slopes=(0,))
    yield from _discrete(simplex, formulas, lambda p: sum_last(entr(p)), probabilities, sizes, up_to_a_constant=True)
    yield Row(
        "simplex.js_of",
        "",
        jax.vmap(simplex.js_of),
        plain.js_of_several,
        lambda *size: (softmax(*_several(*size)),),
        ((4, 512, 128), (8, 16, 32000)),
        (0,),
        up_to_a_constant=True,
    )
    ours = jax.vmap(simplex.mutual_information)
    yield Row(
        "simplex.mutual_information",
        "",
        ours,
        plain.mutual_information,
        _joint,
        ((256, 16), (1, 1024)),
        (0,),
        up_to_a_constant=True,
    )
    yield row(
        "simplex.from_counts",
        "",
        functools.partial(simplex.from_counts, pseudo_count=0.5),
        lambda c: (c + 0.5) / jnp.sum(c + 0.5, -1, keepdims=True),
        first(_counts),
    )
    yield row(
        "simplex.dirichlet_smoothed",
        "",
        jax.vmap(functools.partial(simplex.dirichlet_smoothed, strength=10.0), (0, None)),
        lambda c, b: (c + 10 * b) / (jnp.sum(c, -1, keepdims=True) + 10),
        _counts,
    )


# ---------------------------------------------------------------- normal laws


def _normals(*shape):
    d = shape[1] if shape[1:] else 1
    locs = (normal(*shape, seed=i, scale=0.5 / d**0.5) for i in range(2))
    scales = (s * positive(*shape, seed=2 + i, scale=0.05) for i, s in enumerate((1.0, 1.5)))
    return tuple(map(gaussian.Normal, locs, scales))


def _log_scales(rows, d):
    return tuple(gaussian.NormalLogScale(law.loc, jnp.log(law.scale)) for law in _normals(rows, d))


def _root(rows, d, seed, scale):
    low = jnp.tril(normal(rows, d, d, seed=seed, scale=0.3 / d**0.5), -1)
    return scale * (low + positive(rows, d, 1, seed=seed + 1, scale=0.1) * jnp.eye(d))


def roots(rows, d):
    # Wide enough for the chi-squared divergence to be finite.
    scales = 1.0, 1.2 * (1 + 0.6 / d**0.5)
    locs = (normal(rows, d, seed=i, scale=d**-0.5) for i in range(2))
    roots = (_root(rows, d, 2 + 2 * i, s) for i, s in enumerate(scales))
    return tuple(map(gaussian.MultivariateNormal, locs, roots))


def _converted(form):
    return lambda rows, d: tuple(jax.vmap(lambda law: gaussian.convert(law, form))(x) for x in roots(rows, d))


def _low_ranks(rows, d, rank):
    locs = (normal(rows, d, seed=i, scale=d**-0.5) for i in range(2))
    factors = (normal(rows, d, rank, seed=2 + i, scale=0.3) for i in range(2))
    diagonals = (s * positive(rows, d, seed=4 + i, scale=0.1) for i, s in enumerate((1.0, 1.5)))
    return tuple(map(gaussian.LowRankNormal, locs, factors, diagonals))


def _matrices(rows, n, m):
    locs = (normal(rows, n, m, seed=i, scale=0.3) for i in range(2))
    of_rows, of_columns = ([_root(rows, k, 4 * i + n, 1 + 0.1 * i) for i in range(2)] for k in (n, m))
    return tuple(map(gaussian.MatrixNormal, locs, of_rows, of_columns))


SIZES = (256, 8), (16, 128)
FORMS = {  # beside the root, on few verbs
    "CovarianceNormal": (_converted(gaussian.CovarianceNormal), SIZES),
    "PrecisionNormal": (_converted(gaussian.PrecisionNormal), SIZES),
    "NaturalNormal": (_converted(gaussian.NaturalNormal), SIZES),
    "LowRankNormal": (_low_ranks, ((64, 64, 4), (1, 256, 8))),
    "MatrixNormal": (_matrices, ((64, 8, 4), (4, 16, 16))),
}


def _options(verb, sizes, drawn):
    """The options of a verb; Monte Carlo takes smaller sizes."""
    return {"sizes": drawn, "tolerance": None} if verb.startswith("js") else {"sizes": sizes}


def _verbs(form, formulas, make, sizes, drawn):
    for verb, formula in formulas.items():
        ours, of = with_numbers(gaussian, verb, form)
        options = _options(verb, sizes, drawn)
        yield Row(f"gaussian.{verb}", of, jax.vmap(ours), formula, make, slopes=BOTH, **options)


def _of_independent():
    sizes, d = ((256, 32), (16384, 64)), 32
    yield from _verbs("Normal", plain.OF_NORMALS, _normals, sizes, ((256, 8),))
    scaled = {verb: _by(plain.scaled, plain.OF_NORMALS[verb]) for verb in ("kl", "renyi")}
    yield from _verbs("NormalLogScale", scaled, _log_scales, sizes, sizes)
    one = {"total_variation": plain.normal_total_variation}
    yield from _verbs("Normal, d=1", one, _normals, ((1024,), (262144,)), sizes)
    entropy, log_density = jax.vmap(gaussian.entropy), jax.vmap(gaussian.log_density)
    yield Row("gaussian.entropy", "Normal", entropy, plain.normal_entropy, first(_normals), sizes, (0,))
    yield Row(
        "gaussian.log_density",
        "Normal",
        log_density,
        plain.normal_log_density,
        lambda *size: (_normals(*size)[0], normal(*size)),
        sizes,
        BOTH,
    )
    yield Row(
        "gaussian.sample",
        "Normal",
        lambda p: gaussian.sample(p, jax.random.key(0), shape=plain.DRAWS),
        lambda p: plain.normal_draws(p, jax.random.key(0)),
        lambda d: (gaussian.Normal(normal(d), positive(d)),),
        ((d,), (16 * d,)),
        (0,),
    )


def _by(conversion, formula):
    return lambda *laws: formula(*map(conversion, laws))


def _of_matrices():
    formulas = {verb: jax.vmap(formula) for verb, formula in plain.OF_ROOTS.items()}
    yield from _verbs("MultivariateNormal", formulas, roots, SIZES, ((64, 8),))
    for (form, (make, sizes)), verb in itertools.product(FORMS.items(), ("kl", "squared_wasserstein2")):
        formula = _by(plain.rooted, plain.OF_ROOTS[verb])
        formula = plain.OF_FORMS.get((form, verb), formula)
        yield from _verbs(form, {verb: jax.vmap(formula)}, make, sizes, sizes)
    for form, (make, sizes) in ({"MultivariateNormal": (roots, SIZES)} | FORMS).items():
        formula = jax.vmap(_by(plain.rooted, plain.full_entropy))
        yield Row("gaussian.entropy", form, jax.vmap(gaussian.entropy), formula, first(make), sizes, (0,))


# ---------------------------------------------------------------- mixtures and exponential families


def _mixtures(n, d):
    locs = (normal(n, d, seed=2 + i) for i in range(2))
    scales = (positive(n, d, seed=4 + i, scale=0.2) for i in range(2))
    weights = (normal(n, seed=i, scale=0.3) for i in range(2))
    return tuple(map(mixture.GaussianMixture, weights, map(gaussian.Normal, locs, scales)))


def _drawn(interval, p, q):
    return interval(p, q, key=jax.random.key(0), samples=plain.DRAWS)


def _of_mixtures():
    for name, kl in (("kl_interval", True), ("js_interval", False)):
        yield Row(
            f"mixture.{name}",
            "draws",
            functools.partial(_drawn, getattr(mixture, name)),
            functools.partial(plain.mixture_estimate, kl=kl),
            _mixtures,
            ((4, 2), (16, 32)),
            seen=lambda interval: interval.estimate,
            tolerance=None,
        )
    yield Row(
        "mixture.log_density",
        "",
        jax.vmap(mixture.log_density, (None, 0)),
        plain.mixture_log_density,
        lambda rows, n, d: (_mixtures(n, d)[0], normal(rows, d, seed=9)),
        ((256, 4, 2), (4096, 16, 32)),
        BOTH,
    )


def _log_rates(rows, d):
    return tuple(normal(rows, d, seed=i, scale=0.3) for i in range(2))


def _concentrations(rows, d):
    return tuple(positive(rows, d, seed=i) + 1 for i in range(2))


def _pairs_of_concentrations(rows, d):
    return tuple(tuple(positive(rows, d, seed=2 * i + j) + 1 for j in range(2)) for i in range(2))


def _log_normalizer(eta):
    return jnp.sum(jnp.exp(eta))


def _of_exponential_families():
    sizes = (1024, 8), (16384, 8)
    for verb, formula in plain.OF_LOG_RATES.items():
        function, of = with_numbers(exponential_family, verb, "exp")
        ours = jax.vmap(functools.partial(function, _log_normalizer))
        options = _options(verb, sizes, ((64, 8),))
        yield Row(f"exponential_family.{verb}", of, ours, formula, _log_rates, slopes=BOTH, **options)
    for name, formula in plain.KL_OF_MEMBERS.items():
        make = _pairs_of_concentrations if name in ("gamma", "beta") else _concentrations
        ours = jax.vmap(functools.partial(exponential_family.kl, getattr(exponential_family, name)))
        yield Row("exponential_family.kl", name, ours, formula, make, sizes, BOTH)


FAMILIES = (_of_categorical, _of_bernoulli, _of_simplex, _of_independent, _of_matrices, _of_mixtures)
ROWS = [row for family in (*FAMILIES, _of_exponential_families) for row in family()]
