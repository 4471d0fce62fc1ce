r"""How the laws of each discrete family are averaged and moved: by log-probabilities `[k]`.

The mean of order $\alpha$ of laws $p_j$ with weights $w_j$ is the power mean
$c \propto (\sum_j w_j p_j^\alpha)^{1 / \alpha}$, event by event; at $\alpha = 0$ it is the geometric mean.
"""

import jax
import jax.numpy as jnp

from jaxdiv._core.functions import enlarged, log1p_ratio, log_of_enlarged, log_softmax, or_one, root, scaled_expm1
from jaxdiv._core.groups import Groups, Space, largest, means


def _power_mean(order, groups: Groups):
    order = jnp.asarray(order, groups.laws.dtype)
    sign = jnp.where(order > 0, jnp.ones_like(order), -1)
    extreme = sign * largest(lambda x: sign * x, groups)  # the least for a negative order
    absent = extreme == -jnp.inf

    def power(log_p, extreme):
        """((p / extreme)^order - 1) / order, and (p / extreme)^order."""
        zero, absent = log_p == -jnp.inf, extreme == -jnp.inf
        ratio = jnp.where(zero | absent, 0, log_p - jnp.where(absent, 0, extreme))
        change = jnp.where(zero & ~absent, -1 / or_one(order), scaled_expm1(ratio, order))
        return change, jnp.where(zero & ~absent, 0, jnp.exp(order * ratio))

    change, mean = means(power, groups, extreme)
    small = absent | (order * change > -0.5)
    # Of a mean near 0 the change from 1 would keep few digits.
    log_mean = jnp.log(jnp.where(small, 1, mean)) / or_one(order)
    change = jnp.where(small & ~absent, change, 0)
    log_mean = jnp.where(small, change * log1p_ratio(order * change), log_mean)
    return jax.vmap(log_softmax)(jnp.where(absent, -jnp.inf, extreme + log_mean))


def _moved(log_p, change):
    # Divided by the root of p, a move has the unit of the Fisher metric. Events with p = 0 do not move.
    p = jnp.exp(log_p)
    return log_softmax(log_p + change / jnp.where(p == 0, jnp.inf, root(p)))


LOGITS = Space(point=log_softmax, law=lambda log_p: log_p, move=_moved, mean=_power_mean)

EVENT = Space(
    point=lambda a: jnp.stack([jax.nn.log_sigmoid(-a), jax.nn.log_sigmoid(a)], -1),
    law=lambda log_p: log_p[..., 1] - log_p[..., 0],
    move=_moved,
    mean=_power_mean,
)


SIMPLEX = Space(point=lambda p: log_softmax(log_of_enlarged(enlarged(p))), law=jnp.exp, move=_moved, mean=_power_mean)
