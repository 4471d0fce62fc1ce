"""Every tuned number, with its unit, what was measured, and the bench case that shows it.

Read them as `tuning.NAME`, so that a test can change one for all who use it. No unit given is a plain count.
"""

# ---------------------------------------------------------------- rows in blocks, `_core/blocks.py`

# Elements of a block of rows on CPU: in float32 1 MiB, little enough for a cache, enough to keep the cores busy. At
# 2^16 a core alone took half of the time of two; at 2^19 temporaries pass 8 MiB and nothing is gained.
# `kl-grad-512x32000`.
BLOCK = 2**18

# Pairs, below which a table does not pay for the loop over events that `of_pairs` is.
PAIRS = 2**8

# ---------------------------------------------------------------- programs, `_core/programs.py`

# Programs kept for functions that callers give, those used last. Bounds memory; not timed.
PROGRAMS = 64

# ---------------------------------------------------------------- few events, `_core/events.py`

# Events that are taken one after the other: at 32 that is no faster than blocks of rows and compiles four times as
# long. `everyday-js-65536x10`.
SHORT = 16

# ---------------------------------------------------------------- all pairs event by event, `_discrete/tables.py`

# Terms written out in one loop body. Up to 15, XLA moves their slicing into the loop over pairs, which then is not
# vectorised: six times slower. `pairs-js-500`.
CHUNK = 16

# ---------------------------------------------------------------- tiles of all pairs, `batching.py`

# Elements of a tile of whole pairs: 4 MiB in float32 where a divergence is not itself evaluated in blocks.
# `pairs-any-js-500`.
TILE = 2**20

# What a pair of laws of several arrays, normal laws and the like, needs in units of its size: a Jensen-Shannon
# divergence in 8 dimensions takes 2 KiB. `pairs-gaussian-js-500x8`.
PER_PAIR = 6

# Laws to the side of a tile at most: rows of 256 or 512 numbers would share few lines of a cache. `pairs-js-500`.
SIDE = 400

# Laws that the side of a tile is a multiple of: the length of a processor's vectors, without which a short side costs
# half as much again. `pairs-js-500`.
LANES = 16

# Elements of the laws on one side of a tile that holds laws alone, in no pairs. `pairs-js-500`.
LAWS = 2**19

# ---------------------------------------------------------------- the fused head, `fused.py`

# Bytes for the logits of a block of tokens by default: 128 tokens of 32000 classes, half of it for logits. At 64 tokens
# the head costs 1.09 to 1.12 of kept logits, at 32 tokens 1.24 to 1.39. `fused-kl-grad-2048x512x32000`.
MEMORY = 2**26

# The part of `BLOCK`, one in so many, whose rows go through a loss at a time: more are no faster, and their loss needs
# more than the budget counts. `fused-kl-grad-2048x512x32000`.
ROWS_OF_LOSS = 4

# ---------------------------------------------------------------- matrices, `_gaussian/linalg.py`

# Dimensions up to this one are unrolled: a call costs more than the work there. `gaussian-kl-100000x8`.
SMALL = 8

# Matrices in a batch below which loops are not written out: a program of many lines takes seconds to compile.
# `gaussian-verbs-grad-1000x8`, `python -m bench.cold`.
FEW = 2**8

# Dimensions above this one are left to the library; no large batch has them, whose calls would wait for each other.
LARGE = 64

# ---------------------------------------------------------------- centroids, `clustering.py`

# Evaluations of a descent at most, and of one within a step of k-means, which continues it in the next. Divergences
# near each other need some 10, histograms with many zeros 50. `kmeans-js-100000x64`.
DESCENT = 200
DESCENT_OF_A_STEP = 6

# ---------------------------------------------------------------- samples and metrics

# Coordinates of differences at once in an estimate by nearest neighbours: 16 MiB in float32. Bounds memory; not timed.
DIFFERENCES = 2**22

# Partial sums of groups at most, and the terms in each at least: a scatter adds one term after the other, each with a
# rounding, so that short runs are accurate. Bounds memory; not timed.
PARTIAL_SUMS = 2**20
RUN = 32
