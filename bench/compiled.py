"""`python -m bench compiled`: programs for accelerators that are absent, and what XLA made of them.

Each program is compiled ahead of time for a TPU v5e and an NVIDIA H200, beside the formula as one writes it. Figures
are its traffic (`bench.traffic`) over the least, every argument and every result once; temporaries over the largest
argument; kernels. Nothing runs: caches, launches and times are not known. Needs the extra `accelerators`.
"""

import functools
import json
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies

from bench import device
from bench.cases import optax_kl, rel_entr_js, rel_entr_kl
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


@functools.cache
def chip(name: str) -> jax.sharding.Sharding:
    """One device of a kind that need not be there."""
    # A compiler looks for its device, or asks a host in a cloud for it, unless it is told not to.
    jax.config.update("jax_platforms", "cpu")
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    os.environ |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_LOG_DIR": "disabled", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return jax.sharding.SingleDeviceSharding(topologies.get_topology_desc(**CHIPS[name]).devices[0])


# ---------------------------------------------------------------- programs


class Program(NamedTuple):
    """What is compiled, ours first; the shapes of its arguments; whether loops are part of it."""

    contenders: dict[str, Callable]
    arguments: tuple
    loops: bool = False


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


def _programs():
    kl = {"jaxdiv": losses.forward_kl, "optax": optax_kl}
    js = {"jaxdiv": losses.js, "plain": device.plain_js}

    def each(form, contenders):
        return {name: form(f) for name, f in contenders.items()}

    def logits(rows, k, dtype="float32"):
        return (_of(rows, k, dtype=dtype),) * 2

    long, half, short, laws = (
        logits(4096, 32000),
        logits(4096, 32000, "bfloat16"),
        logits(65536, 10),
        logits(65536, 256),
    )
    labels = {
        "jaxdiv": losses.cross_entropy_with_labels,
        "optax": optax.losses.softmax_cross_entropy_with_integer_labels,
    }
    simplex_kl = {"jaxdiv": jax.vmap(simplex.kl), "rel_entr": rel_entr_kl}
    simplex_js = {"jaxdiv": jax.vmap(simplex.js), "rel_entr": rel_entr_js}
    normals = (_of(4096, 8), _of(4096, 8, 8)) * 2
    pairs = (_of(2000, 256),) * 2
    head = _of(2048, 512), _of(512, 32000)
    large = _of(8192, 4096, dtype="bfloat16"), _of(4096, 128256, dtype="bfloat16")
    values, points = _of(2**20), (_of(4096, 16),) * 2
    of_pairs = {
        "jaxdiv": lambda p, q: pairwise(simplex.js, p, q),
        "rows": _rows_of_pairs,
    }
    return {
        "KL of logits 4096 x 32000": Program(kl, long),
        "KL of logits 1024 x 128256": Program(kl, logits(1024, 128256)),
        "KL of logits 4096 x 1024": Program(kl, logits(4096, 1024)),
        "KL of logits 65536 x 10": Program(kl, short),
        "KL of logits 4096 x 32000, bfloat16": Program(kl, half),
        "JS of logits 65536 x 10": Program(js, short),
        "KL with gradient, 4096 x 32000": Program(each(device.gradient, kl), long),
        "KL with gradient, 65536 x 10": Program(each(device.gradient, kl), short),
        "KL with gradient, 4096 x 32000, bfloat16": Program(each(device.gradient, kl), half),
        "KL with both gradients, 65536 x 10": Program(each(_both, kl), short),
        "JS with gradient, 65536 x 10": Program(each(device.gradient, js), short),
        "KL with both gradients, 4096 x 32000": Program(each(_both, kl), long),
        "KL with both gradients, 4096 x 32000, bfloat16": Program(each(_both, kl), half),
        "JS with gradient, 4096 x 32000": Program(each(device.gradient, js), long),
        "JS with gradient, 4096 x 32000, bfloat16": Program(each(device.gradient, js), half),
        "labels with gradient, 4096 x 32000": Program(each(_by_labels, labels), (long[0], _of(4096, dtype="int32"))),
        "simplex KL 65536 x 256": Program(simplex_kl, laws),
        "simplex JS 65536 x 10": Program(simplex_js, short),
        "simplex KL with both gradients, 65536 x 256": Program(each(_both, simplex_kl), laws),
        "simplex JS with both gradients, 65536 x 256": Program(each(_both, simplex_js), laws),
        "KL to N(0, 1) with gradients, 65536 x 64": Program(
            {"jaxdiv": _both(losses.standard_normal_kl), "plain": _both(device.plain_standard_kl)},
            (_of(65536, 64),) * 2,
        ),
        "independent Gaussian KL with gradients, 4096 x 8": Program(
            {
                name: device.gradient(f, (0, 1, 2, 3))
                for name, f in (("jaxdiv", _independent), ("plain", _plain_independent))
            },
            (_of(4096, 8),) * 4,
        ),
        "Gaussian KL with gradients, 4096 x 8": Program(
            {"jaxdiv": _gaussians(gaussian.kl), "plain": device.gradient(_plain_gaussian_kl, (0, 1, 2, 3))}, normals
        ),
        "Gaussian JS with gradients, 4096 x 8": Program({"jaxdiv": _gaussians(gaussian.js)}, normals, loops=True),
        "pairwise simplex JS 2000 x 2000 x 256": Program(of_pairs, pairs, loops=True),
        "the same in a lambda": Program(
            {"jaxdiv": lambda p, q: pairwise(lambda a, b: simplex.js(a, b), p, q)}, pairs, loops=True
        ),
        "fused head 2048 x 512 x 32000": Program(_heads(2**26), head * 2, loops=True),
        "fused head 8192 x 4096 x 128256, bfloat16": Program(_heads(2**29), large * 2, loops=True),
        "metrics.update 2^20": Program({"jaxdiv": device.update, "sums": device.two_sums}, (values,)),
        "metrics.update 2^20, 10 groups": Program(
            {"jaxdiv": _update_groups, "sums": _grouped_sums}, (values, _of(2**20, dtype="int32"))
        ),
        "embedding 4096 x 256": Program({"jaxdiv": jax.vmap(embedding.js_features)}, (_of(4096, 256),)),
        "nearest neighbours 4096 x 4096 x 16": Program({"jaxdiv": estimators.knn_kl}, points, loops=True),
    }


PROGRAMS = _programs()


# ---------------------------------------------------------------- figures


class Figures(NamedTuple):
    """Traffic over the least, temporaries over the largest argument, kernels, loops by rounds, whether in float64."""

    traffic: float
    temporaries: float
    kernels: int
    loops: list[int]
    doubles: bool
    seconds: float


def _bytes(tree):
    return [x.size * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree)]


def figures(kind: str, contender: Callable, arguments: Any) -> Figures:
    """Compiles for a chip."""
    start = time.process_time()
    placed = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=chip(kind)) for x in arguments]
    compiled = jax.jit(contender).lower(*placed).compile()
    text, seconds = compiled.as_text(), time.process_time() - start
    if folder := os.environ.get("KEEP"):
        pathlib.Path(folder, f"{os.environ['KEEP_AS']}.txt").write_text(text)
    moved = traffic(text)
    least = sum(_bytes((arguments, jax.eval_shape(contender, *arguments))))
    return Figures(
        moved.bytes / least,
        compiled.memory_analysis().temp_size_in_bytes / max(_bytes(arguments)),
        moved.kernels,
        moved.loops,
        "f64[" in text,
        seconds,
    )


if __name__ == "__main__":
    import sys

    for kind in CHIPS:
        if kind not in sys.argv[1]:
            continue
        for name, program in PROGRAMS.items():
            if not any(re.search(x, name) for x in sys.argv[2:]):
                continue
            for who, f in program.contenders.items():
                if "OURS" in os.environ and who != "jaxdiv":
                    continue
                os.environ["KEEP_AS"] = f"{kind} {name} {who}"
                try:
                    x = figures(kind, f, program.arguments)
                except Exception as e:
                    print(name, who, repr(e)[:500])
                    continue
                import sys as _s

                _s.path.append("/work/shared/accelerators")
                print(
                    f"{kind:5s} {name:50s} {who:12s} {x.traffic:8.2f} temp {x.temporaries:8.3f} kern {x.kernels:6d} {str(x.loops)[:40]} {x.doubles} {x.seconds:.1f} s",
                    flush=True,
                )
