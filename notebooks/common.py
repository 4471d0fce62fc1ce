"""What the notebooks share: data, a small network, one training loop, and where pictures go."""

import functools
import os
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy.stats
from matplotlib import cbook
from matplotlib.axes import Axes
from sklearn.datasets import load_digits, load_sample_image

from jaxdiv import gaussian, objectives

if "ipykernel" not in sys.modules:
    # A script only saves its pictures and must not look for a display; Jupyter keeps its inline backend.
    matplotlib.use("Agg")

# Okabe and Ito's palette: its colours stay apart for the common kinds of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

DATA = Path(__file__).parent / "data"

Parameters = list[tuple[jax.Array, jax.Array]]  # weight and bias of each layer
Function = Callable[[jax.Array], jax.Array]
Number = float | jax.Array  # a number that may be traced


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
    """Scikit-learn's 1797 digits, shuffled once a seed, the first axis: `train` to train on, the rest halved."""
    images, labels = load_digits(return_X_y=True)
    order = np.stack([np.random.default_rng(seed).permutation(len(labels)) for seed in seeds])
    parts = np.split(order, [train, (train + len(labels)) // 2], axis=1)
    return Split(*(Examples(jnp.asarray(images[part] / 16, jnp.float32), jnp.asarray(labels[part])) for part in parts))


def photographs() -> list[np.ndarray]:
    """The photographs that scikit-learn and matplotlib bring along, a temple, a flower and a portrait, in grey."""
    portrait = plt.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    images = load_sample_image("china.jpg"), load_sample_image("flower.jpg"), portrait
    return [image.mean(axis=-1) for image in images]


def patches(image: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Patches `[count, 64]` of 8 x 8 pixels at random places, each stretched to grey values from 0 to 1."""
    rows, columns = (random.integers(size - 8, size=(count, 1)) for size in image.shape)
    found = image[rows + np.arange(64) // 8, columns + np.arange(64) % 8]
    return (found - found.min(axis=1, keepdims=True)) / (np.ptp(found, axis=1, keepdims=True) + 1e-6)


LETTERS = "abcdefghijklmnopqrstuvwxyz "


def letters(text: str) -> np.ndarray:
    """Numbers `[n]` of the letters, without accents; whatever stands between words becomes one space, number 26."""
    text = unicodedata.normalize("NFD", text.casefold()).encode("ascii", "ignore").decode()
    words = "".join(letter if letter in LETTERS else " " for letter in text).split()
    return np.array([LETTERS.index(letter) for letter in " ".join(words)])


def letter_pairs(windows: np.ndarray) -> np.ndarray:
    """Counts `[..., 729]` of the pairs of neighbouring letters in windows `[..., n]`."""
    pairs = 27 * windows[..., :-1] + windows[..., 1:]
    counts = [np.bincount(row, minlength=27**2) for row in pairs.reshape(-1, pairs.shape[-1])]
    return np.reshape(counts, (*pairs.shape[:-1], -1))


def init_mlp(key: jax.Array, sizes: Sequence[int]) -> Parameters:
    """A fully connected network, `sizes` units wide from input to output: He-normal weights, zero biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    layers = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(k, (fan_in, out)) * (2 / fan_in) ** 0.5, jnp.zeros(out)) for k, fan_in, out in layers]


def apply_mlp(
    params: Parameters, inputs: jax.Array, *, dropout: Number = 0.0, key: jax.Array | None = None
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
    learning_rate: Number,
    momentum: float = 0.9,
) -> Any:
    """Minimises `loss(params, batch, key)` by Adam and returns the final parameters.

    The whole run is one `lax.scan`: it compiles once, and `jax.vmap` trains many networks side by side. Each step sees
    `batch_size` examples, drawn with replacement from `data`, a pytree of arrays `[n, ...]`; the loss gets a fresh key.
    `momentum` is the decay of Adam's mean of gradients.
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

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))[0][0]


@functools.partial(jax.jit, static_argnames=("loss", "sizes", "steps", "batch_size"))
def sweep(
    loss: Callable[[Any, Any, jax.Array, jax.Array], jax.Array],
    settings: jax.Array,
    data: Any,
    keys: jax.Array,
    *,
    sizes: tuple[int, ...],
    steps: int,
    batch_size: int = 64,
    learning_rate: Number = 2e-3,
) -> Any:
    """Trains a network for every setting and every seed, side by side in one compiled call.

    Equal keys give every method the same initial weights and batches, so differences between methods are paired.
    `loss(params, batch, key, setting)` is minimised as by `fit`, over arrays `[seed, n, ...]`; the network has `sizes`
    units from input to output, and the learning rate is one number, or one for each of the settings. Returns the final
    parameters, with leading axes `[setting, seed]`.
    """

    def train(setting, rate, data, key):
        init_key, fit_key = jax.random.split(key)
        params, options = init_mlp(init_key, sizes), {"steps": steps, "batch_size": batch_size, "learning_rate": rate}
        return fit(lambda *arguments: loss(*arguments, setting), params, data, fit_key, **options)

    rates = jnp.broadcast_to(jnp.asarray(learning_rate, jnp.float32), len(settings))
    each_seed = jax.vmap(train, in_axes=(None, None, 0, 0))
    return jax.vmap(each_seed, in_axes=(0, 0, None, None))(settings, rates, data, keys)


def attacked(
    model: Function, images: jax.Array, key: jax.Array, measure: Function, radius: Number, iterations: int
) -> jax.Array:
    """Images `[n, 64]` within a radius at which `measure` of the model's logits is large; grey stays in [0, 1]."""

    def at(moved):
        inside = moved + jax.lax.stop_gradient(jnp.clip(moved, 0, 1) - moved)  # clipped, with the gradient of no clip
        return measure(model(inside))

    step = 2.5 * radius / iterations
    moved = objectives.adversarial_example(at, images, key, radius=radius, step_size=step, iterations=iterations)
    return jnp.clip(moved, 0, 1)


@jax.jit
def predict(params: Parameters, images: jax.Array) -> jax.Array:
    """Logits `[setting, seed, n, k]` of the networks of `sweep` for images `[seed, n, d]`."""
    return jax.vmap(jax.vmap(apply_mlp), in_axes=(0, None))(params, images)


def percent_correct(logits: jax.Array, labels: jax.Array) -> np.ndarray:
    """Percentage of the images, the last axis of `labels`, that are classified correctly."""
    return 100 * np.mean(np.argmax(logits, axis=-1) == np.asarray(labels), axis=-1)


def calibration_error(logits: jax.Array, labels: jax.Array) -> np.ndarray:
    """Expected calibration error `[...]` in %: how far confidence is from accuracy, over 15 bins of confidence."""
    confidence = np.asarray(jax.nn.softmax(logits)).max(axis=-1)
    excess = confidence - (np.argmax(logits, axis=-1) == np.asarray(labels))
    bins = np.minimum(15 * confidence, 14).astype(int)
    return 100 * sum(abs(np.mean(np.where(bins == number, excess, 0), axis=-1)) for number in range(15))


def auroc(usual: np.ndarray, strange: np.ndarray) -> np.ndarray:
    """Area `[...]` under the ROC curve in %: how often a strange score `[..., m]` exceeds a usual one `[..., n]`."""
    ranks = scipy.stats.rankdata(np.concatenate([usual, strange], axis=-1), axis=-1)
    n, m = usual.shape[-1], strange.shape[-1]
    return 100 * (ranks[..., n:].sum(axis=-1) - m * (m + 1) / 2) / (n * m)


def spread(values: Any, digits: int = 1) -> str:
    """Mean and standard deviation over the last axis, the seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def ahead(results: Mapping[str, Any], name: str, other: str, *, unit: str = "points") -> float:
    """Prints the paired difference `[seed]` of two results with its deviation, and returns its mean."""
    difference = results[name] - results[other]
    print(f"{name} over {other}: {spread(difference)} {unit}")
    return float(np.mean(difference))


def dot_plot(axis: Axes, table: Mapping[str, Mapping[str, np.ndarray]], kinds: Sequence[str]) -> None:
    """Draws mean and standard deviation over the seeds: a row for each name, a colour for each kind that it has."""
    height = 0.25
    for number, (kind, color, marker) in enumerate(zip(kinds, (BLUE, ORANGE, GREEN, PURPLE), "osD^", strict=False)):
        shift = height * ((len(kinds) - 1) / 2 - number)
        rows = [(shift - row, values[kind]) for row, values in enumerate(table.values()) if kind in values]
        means, deviations = ([f(values) for _, values in rows] for f in (np.mean, functools.partial(np.std, ddof=1)))
        axis.errorbar(means, [row for row, _ in rows], xerr=deviations, fmt=marker, capsize=3, color=color, label=kind)
    axis.set_yticks(-np.arange(len(table)), list(table))
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=len(kinds), frameon=False, fontsize="small")


def classifiers(examples: Examples, keys: jax.Array, *, features: int) -> Parameters:
    """Networks of 64-128-`features`-10 units that tell digits apart, one a seed, the first axis of everything."""

    def loss(params, batch, key):
        logits = apply_mlp(params, batch.images, dropout=0.2, key=key)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))

    def train(arguments):
        params = init_mlp(arguments[1], [64, 128, features, 10])
        return fit(loss, params, *arguments, steps=600, batch_size=100, learning_rate=3e-3)

    return jax.jit(lambda *arguments: jax.lax.map(train, arguments))(examples, keys)


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
    """The share of reference points `[m, d]` with a sample nearer than the fifth of their neighbours (Naeem 2020)."""
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


def save_figure(figure: plt.Figure, name: str) -> None:
    """Saves the figure under `name` beside the notebooks, and prints where."""
    path = Path(__file__).parent / name
    figure.savefig(path, dpi=160, bbox_inches="tight")
    print("saved", os.path.relpath(path))
