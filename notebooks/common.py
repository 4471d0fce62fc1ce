"""What the notebooks share: data, a small network, one training loop, and where pictures go."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from jaxdiv import gaussian

if "ipykernel" not in sys.modules:
    # A script only saves its pictures and must not look for a display; Jupyter keeps its inline backend.
    matplotlib.use("Agg")

# Okabe and Ito's palette: its colours stay apart for the common kinds of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

Parameters = list[tuple[jax.Array, jax.Array]]  # weight and bias of each layer


class Examples(NamedTuple):
    """Images `[..., n, 64]` with grey values in [0, 1], and their labels `[..., n]`."""

    images: jax.Array
    labels: jax.Array


class Split(NamedTuple):
    """Three disjoint parts of one data set."""

    train: Examples
    validation: Examples
    test: Examples


def digits(seeds: Sequence[int], *, train: int = 1000) -> Split:
    """Scikit-learn's 1797 handwritten digits of 8 x 8 pixels, shuffled once per seed.

    Args:
        seeds: One shuffle for each.
        train: How many images to train on; the rest is halved into validation and test.

    Returns:
        The split; every array has a leading axis `[seed]`.
    """
    images, labels = load_digits(return_X_y=True)
    order = np.stack([np.random.default_rng(seed).permutation(len(labels)) for seed in seeds])
    parts = np.split(order, [train, (train + len(labels)) // 2], axis=1)
    return Split(*(Examples(jnp.asarray(images[part] / 16, jnp.float32), jnp.asarray(labels[part])) for part in parts))


def init_mlp(key: jax.Array, sizes: Sequence[int]) -> Parameters:
    """A fully connected network, `sizes` units wide from input to output: He-normal weights, zero biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    layers = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(k, (fan_in, out)) * (2 / fan_in) ** 0.5, jnp.zeros(out)) for k, fan_in, out in layers]


def apply_mlp(
    params: Parameters, inputs: jax.Array, *, dropout: float | jax.Array = 0.0, key: jax.Array | None = None
) -> jax.Array:
    """Logits `[n, k]` of a ReLU network for inputs `[n, d]`; given a `key`, drops hidden units at rate `dropout`."""
    hidden = inputs
    for weight, bias in params[:-1]:
        hidden = jax.nn.relu(hidden @ weight + bias)
        if key is not None:
            key, layer_key = jax.random.split(key)
            keep = jax.random.bernoulli(layer_key, 1 - dropout, hidden.shape)
            hidden = jnp.where(keep, hidden / (1 - dropout), 0)
    weight, bias = params[-1]
    return hidden @ weight + bias


def fit(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    data: Any,
    key: jax.Array,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float | jax.Array,
    momentum: float = 0.9,
) -> Any:
    """Minimises `loss(params, batch, key)` by Adam and returns the final parameters.

    The whole run is one `lax.scan`: it compiles once, and `jax.vmap` trains many networks side by side.

    Args:
        loss: The scalar to minimise; its key is fresh at every step.
        params: Where to start, any pytree.
        data: A pytree of arrays `[n, ...]`.
        key: Of all randomness here and in the loss.
        steps: How many updates.
        batch_size: How many examples each update sees, drawn with replacement.
        learning_rate: Of Adam, a number that may be traced.
        momentum: Of Adam, the decay of its mean of gradients.
    """
    optimizer = optax.adam(learning_rate, b1=momentum)
    size = len(jax.tree.leaves(data)[0])

    def step(carry, step_key):
        params, state = carry
        batch_key, loss_key = jax.random.split(step_key)
        rows = jax.random.randint(batch_key, (batch_size,), 0, size)
        batch = jax.tree.map(lambda array: array[rows], data)
        updates, state = optimizer.update(jax.grad(loss)(params, batch, loss_key), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
    return params


def classifiers(examples: Examples, keys: jax.Array, *, features: int) -> Parameters:
    """Networks of 64-128-`features`-10 units that tell digits apart, one a seed, the first axis of everything."""

    def loss(params, batch, key):
        logits = apply_mlp(params, batch.images, dropout=0.2, key=key)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))

    def train(arguments):
        params = init_mlp(arguments[1], [64, 128, features, 10])
        return fit(loss, params, *arguments, steps=600, batch_size=100, learning_rate=3e-3)

    return jax.jit(lambda *arguments: jax.lax.map(train, arguments))(examples, keys)


def spread(values: Any, digits: int = 1) -> str:
    """Mean and standard deviation over the last axis, the seeds, as text."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def squared_distances(xs: jax.Array, ys: jax.Array) -> jax.Array:
    """Squares of the distances `[n, m]` of points `[n, d]` and `[m, d]`, by one matrix product."""
    return jnp.sum(xs**2, -1)[:, None] + jnp.sum(ys**2, -1)[None] - 2 * xs @ ys.T


def hidden(classifier: Parameters, images: jax.Array) -> jax.Array:
    """The last hidden units `[n, h]` of a classifier for images `[n, 64]`."""
    return jax.nn.relu(apply_mlp(classifier[:-1], images))


def law_of(points: jax.Array) -> gaussian.CovarianceNormal:
    """The normal distribution with the mean and covariance of points `[n, d]`; a constant component varies a little."""
    covariance = jnp.cov(points, rowvar=False) + 1e-4 * jnp.eye(points.shape[1])
    return gaussian.CovarianceNormal(points.mean(0), covariance)


def mmd(xs: jax.Array, ys: jax.Array) -> jax.Array:
    """Squared maximum mean discrepancy of equally many points `[n, d]`, by three inverse multiquadratic kernels."""
    points, width = jnp.concatenate([xs, ys]), 2.0 * xs.shape[1]
    sides = jnp.repeat(jnp.array([1.0, -1.0]), len(xs)) / len(xs)
    squares = squared_distances(points, points)
    return sides @ sum(c * width / (c * width + squares) for c in (0.1, 1.0, 10.0)) @ sides


def coverage(samples: jax.Array, reference: jax.Array) -> jax.Array:
    """The share of reference points `[m, d]` with a sample nearer than the fifth of their own neighbours.

    Naeem et al., Reliable fidelity and diversity metrics for generative models, 2020.
    """
    radius = -jax.lax.top_k(-squared_distances(reference, reference), 6)[0][:, 5]  # each is its own nearest
    return jnp.mean(jnp.min(squared_distances(reference, samples), axis=1) < radius)


def show_images(axes: Axes, images: Any, *, columns: int) -> None:
    """Shows square images `[n, pixels]`, each on its own grey scale, in rows of so many, and hides the ticks."""
    images = np.asarray(images)
    side = round(images.shape[-1] ** 0.5)
    low, high = images.min(-1, keepdims=True), images.max(-1, keepdims=True)
    tiles = ((images - low) / np.maximum(high - low, 1e-6)).reshape(-1, columns, side, side)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1)  # a white line between images
    axes.imshow(tiles.transpose(0, 2, 1, 3).reshape(-1, columns * (side + 1)), cmap="gray")
    axes.set(xticks=[], yticks=[], frame_on=False)


def save_figure(figure: Figure, name: str) -> None:
    """Saves the figure under `name` beside the notebooks, and prints where."""
    path = Path(__file__).parent / name
    figure.savefig(path, dpi=160, bbox_inches="tight")
    print("saved", os.path.relpath(path))
