"""One of two processes of four devices each, which evaluate and merge together: run by test_sharding."""

import functools
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdiv import categorical, metrics

ROWS, K, GROUPS = 128, 32, 3
ULP = np.finfo(np.float32).eps


@jax.jit
def evaluate(state, p, q, groups):
    values = jax.vmap(categorical.js)(p, q)
    return values, metrics.update(state, values, groups=groups)


def agree(found, expected):
    # A standard error has the rounding of the mean times (mean / deviation)^2, here 30.
    for x, y, rounding in zip(found, expected, (8, 200, 8), strict=True):
        np.testing.assert_allclose(x, y, rounding * ULP)


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

    # A state to a process, merged on the host.
    own = evaluate(metrics.empty(GROUPS), *mine)[1]
    both = multihost_utils.process_allgather(own)
    halves = (jax.tree.map(lambda x, i=i: x[i], both) for i in range(2))
    agree(metrics.compute(metrics.merge(*halves)), expected)
    jax.distributed.shutdown()


main(sys.argv[1], int(sys.argv[2]))
