"""What two passes over `[rows, k]` may share, by platform."""

from collections.abc import Callable

import jax
from jax import lax


def recomputed(f: Callable[..., jax.Array], *arguments: object) -> jax.Array:
    """`f(*arguments)`; what it shares with other passes is computed again, not stored.

    If value and gradient are separate programs, the arguments are kept between them, nothing of f. If they are one, XLA
    for a TPU fuses them into one pass over the arguments, and a barrier would prevent that; elsewhere it would store
    what they share.
    """
    together, apart = (jax.checkpoint(f, prevent_cse=x) for x in (False, True))
    return lax.platform_dependent(*arguments, tpu=together, default=apart)
