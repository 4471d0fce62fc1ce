"""One of two processes of four devices each, which evaluate and merge together: run by test_sharding."""

import functools
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiv import categorical, fused, losses, metrics

ROWS, K, GROUPS = 128, 32, 3
ULP = np.finfo(np.float32).eps


@jax.jit
def evaluate(state, p, q, groups):
    values = jax.vmap(categorical.js)(p, q)
    return values, metrics.update(state, values, groups=groups)


def agree(found, expected):
    # A standard error has the rounding of the mean times (mean / deviation)^2, here 30.
    for x, y, rounding in zip(found, expected, (8, 200, 8, 8), strict=True):
        np.testing.assert_allclose(x, y, rounding * ULP)


def divided_head(rng):
    """A fused loss whose tokens are divided over the processes and whose classes over the devices of each."""
    shapes = (ROWS, 8), (8, K), (ROWS, 8), (8, K)
    specs = P("data", None), P(None, "model"), P("data", None), P(None, "model")
    whole = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    mesh = jax.make_mesh((2, 4), ("data", "model"))
    places = [NamedSharding(mesh, spec) for spec in specs]
    arrays = [
        jax.make_array_from_callback(x.shape, place, x.__getitem__) for x, place in zip(whole, places, strict=True)
    ]

    def loss(x, w, y, u, axis_name=None, **options):
        memory = 32 * 2 * 4 * w.shape[1]  # blocks of 32 tokens
        teacher = fused.Linear(y, u)
        return fused.mean_linear_divergence(
            x, w, teacher, losses.forward_kl, memory=memory, axis_name=axis_name, **options
        )

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=P())
    def summed(*arrays):
        return jax.lax.psum(loss(*arrays, axis_name="model", denominator=ROWS), "data")

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*whole)
    for of_all in (loss, summed):
        compiled = jax.jit(jax.value_and_grad(of_all, argnums=(0, 1))).lower(*arrays).compile()
        assert not any(name in compiled.as_text() for name in ("all-gather", "all-to-all", "collective-permute"))
        found, divided = compiled(*arrays)
        np.testing.assert_allclose(found, value, 20 * ULP)
        for gradient, expected in zip(divided, gradients, strict=True):
            for shard in gradient.addressable_shards:
                np.testing.assert_allclose(shard.data, expected[shard.index], 1e-4, 1e-7)


def main(port, process):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=process)
    assert (len(jax.devices()), len(jax.local_devices())) == (8, 4)
    rng = np.random.default_rng(0)
    whole = *rng.normal(size=(2, ROWS, K)).astype(np.float32), rng.integers(GROUPS, size=ROWS).astype(np.int32)
    mine = [x[process * ROWS // 2 :][: ROWS // 2] for x in whole]
    truth, state = evaluate(metrics.empty(GROUPS), *whole)
    expected = metrics.compute(state)

    # One program over the devices of both: every process holds the state of all.
    mesh = jax.make_mesh((8,), ("x",))
    sharding = NamedSharding(mesh, P("x"))
    arrays = [jax.make_array_from_process_local_data(sharding, x) for x in mine]
    compiled = evaluate.lower(metrics.empty(GROUPS), *arrays).compile()
    assert not any(name in compiled.as_text() for name in ("all-gather", "all-to-all", "collective-permute"))
    values, together = compiled(metrics.empty(GROUPS), *arrays)
    for shard in values.addressable_shards:
        np.testing.assert_allclose(shard.data, truth[shard.index], 20 * ULP)
    agree(metrics.compute(together), expected)

    # A state to a device, merged by a sum.
    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("x"), out_specs=P())
    def summed(p, q, groups):
        return jax.lax.psum(evaluate(metrics.empty(GROUPS), p, q, groups)[1], "x")

    agree(metrics.compute(summed(*arrays)), expected)

    divided_head(rng)

    # A state to a process, merged on the host.
    own = evaluate(metrics.empty(GROUPS), *mine)[1]
    both = multihost_utils.process_allgather(own)
    halves = (jax.tree.map(lambda x, i=i: x[i], both) for i in range(2))
    agree(metrics.compute(metrics.merge(*halves)), expected)
    jax.distributed.shutdown()


main(sys.argv[1], int(sys.argv[2]))
