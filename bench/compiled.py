"""`python -m bench compiled`: programs for accelerators that are absent, and what XLA made of them.

Each program is compiled ahead of time for a TPU v5e and an NVIDIA H200, beside the formula as one writes it. Figures
are its traffic (`bench.traffic`) over the least, every argument and every result once; temporaries over the largest
argument; kernels. Nothing runs: caches, launches and times are not known. Needs the extra `accelerators`.
"""

import functools
import importlib.metadata
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies

from bench import device
from bench.cases import optax_kl, rel_entr_js, rel_entr_kl
from bench.measure import ByKernel, built
from bench.traffic import traffic
from jaxdiv import embedding, estimators, fused, gaussian, losses, metrics, pairwise, simplex

RESULTS = pathlib.Path(__file__).with_name("compiled.json")
H200 = """gpu_device_info {
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000 device_memory_size: 151397597184 l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_core: 233472
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 }
platform_name: "CUDA" device_description_str: "H200"
dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 8 }"""
CHIPS = {
    "v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
    "H200": {"platform": "cuda", "topology_name": "", "target_config": H200, "topology": "1x1x1"},
}


def prepare() -> None:
    """What compilers for absent devices need to be told before jax looks for devices."""
    jax.config.update("jax_platforms", "cpu")
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # several processes
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Otherwise libtpu asks a server of its cloud.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }


@functools.cache
def chip(kind: str) -> jax.sharding.Sharding:
    """One device of a kind that need not be there."""
    prepare()
    return jax.sharding.SingleDeviceSharding(topologies.get_topology_desc(**CHIPS[kind]).devices[0])


# ---------------------------------------------------------------- programs


class Bound(NamedTuple):
    """The most that a program of ours may take on a chip, as in `Figures`; the goal of its traffic, where missed."""

    traffic: float
    temporaries: float = 0.02
    goal: float | None = None


class Program(NamedTuple):
    """What is compiled, ours first; the shapes of its arguments; bounds for a v5e and an H200; whether it has loops.

    What is for an H200 alone has no bound for a v5e.
    """

    contenders: dict[str, Callable]
    arguments: tuple
    v5e: Bound | None
    h200: Bound
    loops: bool = False

    def bound(self, kind: str) -> Bound | None:
        """Its bound on a chip; None if it is not for that."""
        return self.v5e if kind == "v5e" else self.h200


def _of(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def _both(loss):
    return device.gradient(loss, (0, 1))


def _gaussians(verb):
    def of(loc_p, root_p, loc_q, root_q):
        return jax.vmap(verb)(*(gaussian.MultivariateNormal(*law) for law in ((loc_p, root_p), (loc_q, root_q))))

    return device.gradient(of, (0, 1, 2, 3))


def _plain_gaussian_kl(loc_p, root_p, loc_q, root_q):
    white = jax.scipy.linalg.solve_triangular(
        root_q, jnp.concatenate([root_p, (loc_p - loc_q)[..., None]], -1), lower=True
    )
    logs = [jnp.sum(jnp.log(jnp.diagonal(r, axis1=-2, axis2=-1)), -1) for r in (root_q, root_p)]
    return 0.5 * (jnp.sum(white**2, (-2, -1)) - loc_p.shape[-1]) + logs[0] - logs[1]


def _independent(loc_p, scale_p, loc_q, scale_q):
    return jax.vmap(gaussian.kl)(gaussian.Normal(loc_p, scale_p), gaussian.Normal(loc_q, scale_q))


def _plain_independent(loc_p, scale_p, loc_q, scale_q):
    ratio = (scale_p / scale_q) ** 2
    return jnp.sum(0.5 * (ratio + ((loc_p - loc_q) / scale_q) ** 2 - 1 - jnp.log(ratio)), -1)


def _by_labels(loss):
    return jax.value_and_grad(lambda logits, labels: jnp.mean(loss(logits, labels)))


def _rows_of_pairs(ps, qs):
    return jax.lax.map(lambda p: rel_entr_js(p[None], qs), ps)


def _heads(memory):
    def mean(x, w, y, u):
        return fused.mean_linear_divergence(x, w, fused.Linear(y, u), losses.forward_kl, memory=memory)

    return {"jaxdiv": jax.value_and_grad(mean, (0, 1)), "kept logits": jax.value_and_grad(_kept_logits, (0, 1))}


def _kept_logits(x, w, y, u):
    student, teacher = (jnp.dot(*law, preferred_element_type=jnp.float32) for law in ((x, w), (y, u)))
    return jnp.mean(optax_kl(student, jax.lax.stop_gradient(teacher)))


def _grouped_sums(values, groups):
    return [jax.ops.segment_sum(x, groups, 10) for x in (values, values**2)]


def _update_groups(values, groups):
    return metrics.update(metrics.empty(10), values, groups=groups)


def _each(form, contenders):
    return {name: form(f) for name, f in contenders.items()}


def _every(loss):
    return device.gradient(loss, (0, 1, 2, 3))


def _of_logits():
    kl, js = {"jaxdiv": losses.forward_kl, "optax": optax_kl}, {"jaxdiv": losses.js, "plain": device.plain_js}
    labels = optax.losses.softmax_cross_entropy_with_integer_labels
    labels = {"jaxdiv": losses.cross_entropy_with_labels, "optax": labels}
    one = device.gradient
    long, half, short = (_of(4096, 32000),) * 2, (_of(4096, 32000, dtype="bfloat16"),) * 2, (_of(65536, 10),) * 2
    three, four, five = Bound(3.02), Bound(4.06, goal=1.1), Bound(5.1, goal=1.8)
    return {
        "KL of logits, 4096 x 32000": Program(kl, long, three, four),
        "KL of logits, 1024 x 128256": Program(kl, (_of(1024, 128256),) * 2, three, four),
        "KL of logits, 4096 x 1024": Program(kl, (_of(4096, 1024),) * 2, Bound(1.52), four),
        "KL of logits, 65536 x 10": Program(kl, short, Bound(2.35), Bound(1.02)),
        "KL of logits, 4096 x 32000, bfloat16": Program(kl, half, three, four),
        "JS of logits, 65536 x 10": Program(js, short, Bound(2.35), Bound(1.12)),
        "KL with gradient, 4096 x 32000": Program(_each(one, kl), long, Bound(2.35), Bound(3.72, goal=1.7)),
        "KL with gradient, 65536 x 10": Program(_each(one, kl), short, Bound(2.15), Bound(2.3, 0.85, 1.7)),
        "KL with gradient, 4096 x 32000, bfloat16": Program(_each(one, kl), half, Bound(2.35), Bound(3.72, goal=1.7)),
        "KL with both gradients, 4096 x 32000": Program(_each(_both, kl), long, three, five),
        "KL with both gradients, 65536 x 10": Program(_each(_both, kl), short, Bound(2.42), Bound(3.3, 1.05, 1.8)),
        "KL with both gradients, 4096 x 32000, bfloat16": Program(
            _each(_both, kl), half, Bound(2.52), Bound(4.6, goal=1.8)
        ),
        "JS with gradient, 4096 x 32000": Program(_each(one, js), long, three, five),
        "JS with gradient, 65536 x 10": Program(_each(one, js), short, Bound(2.15), Bound(3.2, 0.95, 1.8)),
        "JS with gradient, 4096 x 32000, bfloat16": Program(_each(one, js), half, three, five),
        "labels with gradient, 4096 x 32000": Program(
            _each(_by_labels, labels),
            (_of(4096, 32000), _of(4096, dtype="int32")),
            Bound(2.05),
            Bound(2.05, goal=1.7),
        ),
    }


def _of_kernels():
    """Losses of logits with the kernel that is off by default, beside the same without it."""
    kl, js, labels = losses.forward_kl, losses.js, _by_labels(losses.cross_entropy_with_labels)
    forms = {
        "KL of logits": kl,
        "KL with gradient": device.gradient(kl),
        "KL with both gradients": _both(kl),
        "JS with gradient": device.gradient(js),
    }
    long = Bound(1.01), Bound(1.68), Bound(1.52), Bound(1.68)
    # Every row has numbers of its own, which the gradient reads again: five with KL, ten with JS.
    middle = Bound(1.01), Bound(1.73, 0.06, 1.7), Bound(1.57, 0.11), Bound(1.76, 0.12)
    short = Bound(1.01), Bound(2.1, 0.52, 1.7), Bound(2.1, 1.02, 1.8), Bound(2.4, 1.12, 1.8)
    programs = {}
    for rows, k, bounds in [
        (65536, 10, short),
        (8192, 100, middle),
        (512, 32000, long),
    ]:
        given = (_of(rows, k),) * 2
        for (name, form), bound in zip(forms.items(), bounds, strict=True):
            contenders = {"jaxdiv": ByKernel(form), "without": form}
            programs[f"{name} by kernel, {rows} x {k}"] = Program(contenders, given, None, bound)
    half, contenders = (_of(512, 32000, dtype="bfloat16"),) * 2, {"jaxdiv": ByKernel(_both(kl)), "without": _both(kl)}
    programs["KL with both gradients by kernel, 512 x 32000, bfloat16"] = Program(contenders, half, None, long[2])
    given, contenders = (_of(4096, 32000), _of(4096, dtype="int32")), {"jaxdiv": ByKernel(labels), "without": labels}
    return programs | {"labels with gradient by kernel, 4096 x 32000": Program(contenders, given, None, Bound(1.51))}


def _of_others():
    simplex_kl = {"jaxdiv": jax.vmap(simplex.kl), "rel_entr": rel_entr_kl}
    simplex_js = {"jaxdiv": jax.vmap(simplex.js), "rel_entr": rel_entr_js}
    laws, normals, pairs = (_of(65536, 256),) * 2, (_of(4096, 8), _of(4096, 8, 8)) * 2, (_of(2000, 256),) * 2
    large = _of(8192, 4096, dtype="bfloat16"), _of(4096, 128256, dtype="bfloat16")
    groups = {"jaxdiv": _update_groups, "sums": _grouped_sums}
    independent = {"jaxdiv": _every(_independent), "plain": _every(_plain_independent)}
    gaussian_kl = {"jaxdiv": _gaussians(gaussian.kl), "plain": _every(_plain_gaussian_kl)}
    to_standard = {"jaxdiv": _both(losses.standard_normal_kl), "plain": _both(device.plain_standard_kl)}
    of_pairs = {"jaxdiv": lambda p, q: pairwise(simplex.js, p, q), "rows": _rows_of_pairs}
    in_lambda = {"jaxdiv": lambda p, q: pairwise(lambda a, b: simplex.js(a, b), p, q)}
    best = Bound(1.05)
    return {
        "simplex KL, 65536 x 256": Program(simplex_kl, laws, best, best),
        "simplex JS, 65536 x 10": Program(simplex_js, (_of(65536, 10),) * 2, Bound(1.6), Bound(1.14, 0.03)),
        "simplex KL with both gradients, 65536 x 256": Program(
            _each(_both, simplex_kl), laws, best, Bound(1.53, goal=1.05)
        ),
        "simplex JS with both gradients, 65536 x 256": Program(
            _each(_both, simplex_js), laws, best, Bound(1.53, goal=1.05)
        ),
        "KL to N(0, 1) with gradients, 65536 x 64": Program(to_standard, (_of(65536, 64),) * 2, best, best),
        # On a TPU slopes that stay in range where squares of scales do not are read in a pass of their own.
        "independent Gaussian KL with gradients, 4096 x 8": Program(
            independent, (_of(4096, 8),) * 4, Bound(1.55), Bound(1.8, 0.15)
        ),
        "Gaussian KL with gradients, 4096 x 8": Program(gaussian_kl, normals, Bound(1.5), Bound(9.1, 3.4)),
        "Gaussian JS with gradients, 4096 x 8": Program(
            {"jaxdiv": _gaussians(gaussian.js)}, normals, Bound(75, 68), Bound(75, 31), loops=True
        ),
        "pairwise simplex JS, 2000 x 2000 x 256": Program(of_pairs, pairs, Bound(1.1, 0.5), Bound(6.4, 6, 5), True),
        "the same in a lambda": Program(in_lambda, pairs, Bound(1.7, 0.2), Bound(8, 2, 5), True),
        "fused head, 2048 x 512 x 32000": Program(
            _heads(2**26), (_of(2048, 512), _of(512, 32000)) * 2, Bound(13, 2.1), Bound(46, 2.1), True
        ),
        "fused head, 8192 x 4096 x 128256, bfloat16": Program(
            _heads(2**29), large * 2, Bound(70, 3, 16.6), Bound(80, 3, 19.7), True
        ),
        "metrics.update, 2^20": Program({"jaxdiv": device.update, "sums": device.two_sums}, (_of(2**20),), best, best),
        "metrics.update, 2^20, 10 groups": Program(
            groups, (_of(2**20), _of(2**20, dtype="int32")), best, Bound(1.55, 0.03, 1.05)
        ),
        "embedding, 4096 x 256": Program(
            {"jaxdiv": jax.vmap(embedding.js_features)}, (_of(4096, 256),), Bound(5.9, 29, 2), Bound(1.2, 2.1)
        ),
        "nearest neighbours, 4096 x 4096 x 16": Program(
            {"jaxdiv": estimators.knn_kl}, (_of(4096, 16),) * 2, Bound(2.3, 2), Bound(1000, 12), True
        ),
    }


PROGRAMS = _of_logits() | _of_kernels() | _of_others()


# ---------------------------------------------------------------- figures


class Figures(NamedTuple):
    """Traffic over the least, temporaries over the largest argument, kernels, loops by rounds; any float64; CPU s."""

    traffic: float
    temporaries: float
    kernels: int
    loops: list[int]
    doubles: bool
    seconds: float


def _bytes(tree):
    return [x.size * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree)]


def figures(kind: str, contender: Callable, arguments: tuple) -> Figures:
    """Compiles a program for a chip."""
    began = time.process_time()
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=chip(kind)) for x in arguments]
    compiled = built(contender, placed)
    text, seconds = compiled.as_text(), time.process_time() - began
    moved, least = traffic(text), sum(_bytes((arguments, jax.eval_shape(contender, *arguments))))
    temporaries = compiled.memory_analysis().temp_size_in_bytes / max(_bytes(arguments))
    return Figures(moved.bytes / least, temporaries, moved.kernels, moved.loops, "f64[" in text, seconds)


def faults(kind: str, program: Program, found: Figures) -> list[str]:
    """What is wrong with a program of ours."""
    bound = program.bound(kind)
    return [
        *["float64"] * found.doubles,
        *[f"loops of {found.loops} rounds"] * bool(found.loops and not program.loops),
        *[f"traffic {found.traffic:.2f}, at most {bound.traffic}"] * (found.traffic > bound.traffic),
        *[f"temporaries {found.temporaries:.3f}, at most {bound.temporaries}"]
        * (found.temporaries > bound.temporaries),
    ]


# ---------------------------------------------------------------- the report


def run(words: list[str]) -> None:
    """Compiles the programs whose names hold one of the words, or all, and adds their figures to the report."""
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"programs": {}}
    for name, program in PROGRAMS.items():
        if words and not any(word in name for word in words):
            continue
        for kind in filter(program.bound, CHIPS):
            for who, contender in program.contenders.items():
                found = figures(kind, contender, program.arguments)
                wrong = faults(kind, program, found) if who == "jaxdiv" else []
                print(
                    f"{kind:5s} {name:50s} {who:12s} traffic {found.traffic:7.2f}  temporaries {found.temporaries:7.3f}"
                    f"  kernels {found.kernels:5d}  {found.seconds:5.1f} s  {', '.join(wrong)}",
                    flush=True,
                )
                record["programs"].setdefault(name, {}).setdefault(kind, {})[who] = found[:3]
    record["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu", "optax")}
    record["versions"]["jax-cuda12-pjrt"] = importlib.metadata.version("jax-cuda12-pjrt")
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def section() -> str:
    """The part of RESULTS.md about these programs."""
    if not RESULTS.exists():
        return ""
    record = json.loads(RESULTS.read_text())
    lines = [
        "",
        "## Compiled for accelerators that are absent",
        "",
        ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "",
        "Traffic over the least, temporaries over the largest argument, kernels. Nothing was run.",
        "",
        "| program | chip | traffic | goal | temporaries | kernels | beside | traffic | temporaries | kernels |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for name, program in PROGRAMS.items():
        for kind, rows in record["programs"].get(name, {}).items():
            bound = program.bound(kind)
            cells = [name, kind]
            for who in program.contenders:
                moved, temporaries, kernels = rows[who]
                goal = [] if who != "jaxdiv" else [f"{bound.goal}" if bound.goal else ""]
                cells += [] if who == "jaxdiv" else [who]
                cells += [f"{moved:.2f}", *goal, f"{temporaries:.2f}", f"{kernels}"]
            lines.append("| " + " | ".join(cells + [""] * (10 - len(cells))) + " |")
    return "\n".join(lines) + "\n"
