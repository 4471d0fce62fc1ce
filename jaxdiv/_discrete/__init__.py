r"""Divergences of discrete laws: sums over events of a term of $p$, $q$ and $\log(p/q)$.

A record of `terms` holds all that is known of a divergence, its term and slopes first; a family delivers the events.

How a call runs, for a loss of logits:

1. `losses._lift` checks the arrays and moves their events to the last axis; `categorical` checks one pair.
2. `logits.evaluate` takes a record to `logits.total`, which caps the sum at the record's bound.
3. `softmax.total` asks `_statistics` for the sum and the few row numbers that its gradient needs.
4. `blocks.in_row_blocks` merges what `jax.vmap` has added and, on CPU, passes blocks of rows that fit the cache.
5. `softmax._statistics_of_block` makes an `Event` of each pair of logits and sums `divergence.term` over them.
6. A gradient is elementwise: `softmax._gradient`, from the logits, the row numbers and the record's slopes.
7. Probabilities go from `simplex` by `probabilities.total` to such blocks; all pairs, on CPU, to the record's `table`.
8. What is no plain sum stands in `logits` by name: functions of an affinity (`affinity`), `js_of`, `entropy`.

How to add a divergence:

1. Its record in `terms`, and its name among `BY_NAME`: logits, probabilities, samples and tables have it from then on.
2. Its public verbs, each a `def` with a docstring: in `categorical`, `simplex`, `bernoulli`, and `losses` if one trains
   by it.
3. Its definition in `_selfcheck.discrete`, by the textbook: self-check and tests compare with it. Its row in the tests'
   catalogue says what is promised.
"""
