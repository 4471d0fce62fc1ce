"""Every tuned number, with its unit, the measurement behind it, and the bench case that shows it.

Read them as `tuning.NAME`, so that a test can change a number for all its users. A number without a unit is a count.
"""

from typing import NamedTuple

# ---------------------------------------------------------------- rows in blocks, `_core/blocks.py`

# Elements of a block of rows on CPU: 1 MiB in float32, small enough for a cache, large enough to keep the cores busy.
# At 2^16, one core took half of the time of two; at 2^19, temporaries exceed 8 MiB and nothing is faster.
# `kl-grad-512x32000`.
BLOCK = 2**18

# Pairs of a table below which the loop over events of `of_pairs` does not pay.
PAIRS = 2**8

# ---------------------------------------------------------------- programs, `_core/programs.py`

# Programs kept for functions of callers, the latest used ones. Bounds memory; not timed.
PROGRAMS = 64

# ---------------------------------------------------------------- few events, `_core/events.py`

# Events that are taken one after the other, at most: with 32 this is no faster than blocks of rows, and compiling takes
# four times as long. `everyday-js-65536x10`.
SHORT = 16

# ---------------------------------------------------------------- rows by a kernel on a GPU, `_core/kernels.py`

# Elements that a program of the kernel holds at a time, and its warps: 16 elements a thread. On an H200 the KL of
# long rows takes 64 registers a thread, Jensen-Shannon with both gradients 124, of short rows 231; none is spilled. Not
# timed: no device has run it. `python -m bench compiled`.
HELD = 2**12
WARPS = 8

# ---------------------------------------------------------------- all pairs event by event, `_discrete/tables.py`

# Terms written out in one loop body. With 15 or fewer, XLA moves their slicing into the loop over pairs, which is then
# not vectorised and six times slower. `pairs-js-500`.
CHUNK = 16

# ---------------------------------------------------------------- tiles of all pairs, `batching.py`


class Tiles(NamedTuple):
    """The size of a tile of all pairs.

    | field | |
    |---|---|
    | `elements` | of a tile that needs memory for every pair, unless the divergence itself runs in blocks |
    | `side` | laws per side, at most |
    | `laws` | elements of the laws on one side of a tile that needs memory per law only |
    """

    elements: int
    side: int
    laws: int


# On CPU a tile of 4 MiB in float32: `pairs-any-js-500`. Its side is not a power of two, because rows of 256 or 512
# numbers would compete for few cache lines: `pairs-js-500`.
TILES = Tiles(elements=2**20, side=400, laws=2**19)

# Elsewhere a tile is a handful of kernels, each with a launch, which takes microseconds on a GPU (not measured here):
# few tiles. A tile that is stored takes 256 MiB. XLA estimates for a TPU that sides of 400 to 1000 are best.
# `python -m bench compiled`.
TILES_ELSEWHERE = Tiles(elements=2**26, side=1024, laws=2**22)

# Pairs of a table from which it has tiles for each platform: fewer are not worth tracing a program for both,
# which takes .13 s. Not timed elsewhere.
TABLE = 2**20

# Memory for a pair of laws of several arrays, such as normal laws, in units of their size: a Jensen-Shannon divergence
# in 8 dimensions takes 2 KiB. `pairs-gaussian-js-500x8`.
PER_PAIR = 6

# The side of a tile is a multiple of this, the length of a processor's vectors; otherwise a short side costs half as
# much again. `pairs-js-500`.
LANES = 16

# ---------------------------------------------------------------- the fused head, `fused.py`

# Default bytes for the logits of a block of tokens: half of it holds one array of logits, of 262 tokens and 32000
# classes in float32. At 64 tokens the head costs 1.09 to 1.12 of kept logits, at 32 tokens 1.24 to 1.39.
# `fused-kl-grad-2048x512x32000`.
MEMORY = 2**26

# `BLOCK` divided by this is the number of logits that go through a loss at a time: more are no faster, and their loss
# would need more memory than the budget counts. `fused-kl-grad-2048x512x32000`.
ROWS_OF_LOSS = 4

# ---------------------------------------------------------------- matrices, `_gaussian/linalg.py`

# Matrices up to this dimension, and blocks of larger ones, are unrolled: a library call would cost more than the work.
# Written out by halves, 256 gradients at d = 64 took a minute to compile, and 2/3 of the time. `gaussian-kl-100000x8`.
SMALL = 8

# For batches of fewer matrices, loops are not written out: a program of many lines takes seconds to compile.
# `gaussian-verbs-grad-1000x8`, `python -m bench.cold`.
FEW = 2**8

# Matrices above this dimension go to the library, those of a batch one by one (`linalg.call`).
LARGE = 64

# ---------------------------------------------------------------- centroids, `clustering.py`

# Evaluations of a descent, at most; and within one step of k-means, which continues the descent in the next step. Laws
# near each other need about 10, histograms with many zeros 50. `kmeans-js-100000x64`.
DESCENT = 200
DESCENT_OF_A_STEP = 6

# ---------------------------------------------------------------- samples and metrics

# Coordinates of differences held at once in an estimate by nearest neighbours: 16 MiB in float32. Bounds memory; not
# timed.
DIFFERENCES = 2**22

# Partial sums of groups, at most, and the terms in each, at least. A scatter adds one term after the other and rounds
# each time, so short runs are more accurate. Bounds memory; not timed.
PARTIAL_SUMS = 2**20
RUN = 32

# Groups with which every value is compared on an accelerator, at most: one pass instead of a scatter, which a GPU
# does by atomic additions and a TPU one after the other. `python -m bench compiled`.
COMPARED = 64
