r"""Divergences of discrete distributions (*laws*): sums over events of a term of $p$, $q$ and $\log(p/q)$.

A record in `terms` holds everything about a divergence: its term, its slopes and more. A family delivers the events.

How a call runs, for a loss of logits:

1. `losses._lift` checks the arrays and moves their events to the last axis; `categorical` checks one pair.
2. `logits.evaluate` passes a record to `logits.total`, which caps the sum at the record's bound.
3. `softmax.total` asks `_statistics` for the sum and the few row numbers that its gradient needs.
4. `blocks.in_row_blocks` merges the axes that `jax.vmap` has added and, on CPU, passes on blocks that fit the cache.
5. `softmax._statistics_of_rows` makes an `Event` of each pair of logits and sums `divergence.term` over them.
6. `softmax._gradient` computes a gradient elementwise, from the logits, the row numbers and the record's slopes.
7. Probabilities go from `simplex` by `probabilities.total` to such blocks; all pairs, on CPU, to the record's `table`.
8. What is not a plain sum is a function of `logits`: Renyi's divergence, which runs as such a sum does (`tilted`),
   other functions of an affinity (`affinity`), `js_of`, `entropy`.
9. Two events given by one logit need no rows: `binary.total` and `binary_affinity` are elementwise in any batch.
10. Integer labels need no second law: `labels.cross_entropy` has row numbers of its own.

How to add a divergence:

1. Write its record in `terms`, and list it in `BY_NAME`: logits, probabilities, samples and tables then have it.
2. Write its public functions, each a `def` with a docstring: in `categorical`, `simplex`, `bernoulli`, and in `losses`
   if it is used for training.
3. Write its textbook definition in `_selfcheck.discrete`: self-check and tests compare with it. Add its row to the
   tests' catalogue, which says what is promised.
"""
