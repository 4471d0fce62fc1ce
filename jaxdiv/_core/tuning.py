"""Every tuned number, with its unit, what was measured, and the bench case that shows it."""

# Elements of a block of rows on CPU: in float32 1 MiB, little enough for a cache, enough to keep the cores busy.
# From 2^16 to 2^20 the time of `KL` 512 x 32000 was least here (`python -m bench logits`).
BLOCK = 2**18
