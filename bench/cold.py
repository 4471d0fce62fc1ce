"""`python -m bench.cold` is what a first call costs: CPU seconds to trace, lower and compile a value and its gradient.

Caches are cleared before, and the better of two compilations counts. The gradient is in both laws. Lines are those of
the lowered program, instructions those of the compiled one. Names select the cases that contain one of them.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import installed
from bench.gaussians import distrax_kl, numpyro_kl
from jaxdiv import gaussian, mixture

FORMS = {
    "root": gaussian.MultivariateNormal,
    "covariance": gaussian.CovarianceNormal,
    "precision": gaussian.PrecisionNormal,
    "natural": gaussian.NaturalNormal,
}


def _law(form, d, seed):
    rng = np.random.default_rng(seed)
    loc = rng.normal(size=d)
    if form == "independent":
        law = gaussian.Normal(loc, np.exp(rng.normal(size=d)))
    elif form == "lowrank":
        law = gaussian.LowRankNormal(loc, rng.normal(size=(d, 2)), np.exp(rng.normal(size=d)))
    else:
        root = np.tril(0.3 * rng.normal(size=(d, d)), -1) / np.sqrt(d) + np.diag(np.exp(0.3 * rng.normal(size=d)))
        law = FORMS[form](loc, root if form == "root" else root @ root.T)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), law)


def _mixtures(form, d):
    def one(seed):
        laws = [_law(form, d, seed + i) for i in range(3)]
        return mixture.GaussianMixture(jnp.zeros(3), jax.tree.map(lambda *x: jnp.stack(x), *laws))

    return one(0), one(5)


def _estimate(p, q):
    return mixture.kl_interval(p, q).estimate


def _estimate_by_draws(p, q):
    return mixture.kl_interval(p, q, key=jax.random.key(0)).estimate


def _interval(p, q):
    return sum(mixture.kl_interval(p, q, key=jax.random.key(0))[:3])


def _peer(kl):
    return lambda p, q: kl(*p, *q)


def _cases():
    wide = [("kl", "root"), ("kl", "covariance"), ("js", "root"), ("squared_wasserstein2", "root")]
    for verb in ("kl", "js", "chernoff", "squared_wasserstein2"):
        for form in [*FORMS, *(["lowrank"] if verb == "js" else [])]:
            yield f"{verb}-{form}-8", getattr(gaussian, verb), (_law(form, 8, 0), _law(form, 8, 1))
    for d in (31, 64):
        for verb, form in wide:
            yield f"{verb}-{form}-{d}", getattr(gaussian, verb), (_law(form, d, 0), _law(form, d, 1))
    yield "mixture-estimate-independent-2", _estimate, _mixtures("independent", 2)
    for d in (2, 31):
        yield f"mixture-estimate-root-{d}", _estimate_by_draws, _mixtures("root", d)
        yield f"mixture-interval-root-{d}", _interval, _mixtures("root", d)
    for name, kl in installed(numpyro=numpyro_kl, distrax=distrax_kl).items():
        for d in (8, 31):
            yield f"kl-root-{d}-{name}", _peer(kl), (_law("root", d, 0), _law("root", d, 1))


def cold(function, arguments):
    """CPU seconds to trace, to lower and to compile, and the sizes of the programs."""
    jax.clear_caches()
    times = [time.process_time()]
    traced = jax.jit(jax.value_and_grad(function, (0, 1))).trace(*arguments)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    compiled = lowered.compile()
    times.append(time.process_time())
    text = lowered.as_text()
    return np.diff(times), text.count("\n"), sum(" = " in line for line in compiled.as_text().splitlines())


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.cold", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of names of cases")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(3)))
    print(f"{'case':32s} {'CPU s':>6s} {'trace':>6s} {'lower':>6s} {'LLVM':>6s} {'lines':>7s} {'instr':>7s}")
    for name, function, arguments in _cases():
        if options.names and not any(part in name for part in options.names):
            continue
        seconds, lines, instructions = min(
            (cold(function, arguments) for _ in range(1 if options.once else 2)), key=lambda x: sum(x[0])
        )
        print(
            f"{name:32s} {sum(seconds):6.2f} "
            + " ".join(f"{x:6.2f}" for x in seconds)
            + f" {lines:7d} {instructions:7d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
