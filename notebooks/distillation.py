# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Knowledge distillation: what a teacher's probabilities teach
#
# A small network has only 30 images to learn from, or has never been shown one of the classes, while a large network
# has seen everything. How much better does it become by imitating the large one's probabilities instead of the labels?
#
# From 69.7 ± 2.1 % to 87.3 ± 1.8 % on 30 images, where the best remedy for hard labels gains 1.2 ± 1.4 points; of a
# class never shown it recognises 82 ± 7 %, and labels none. Squared error of the same answers ties, at a high
# temperature.
#
# A student with logits $s$ imitates a teacher with logits $t$ by minimising (Hinton, Vinyals & Dean 2015)
#
# $$T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(t / T) \,\big\|\, \mathrm{softmax}(s / T)\bigr).$$
#
# The temperature $T$ lifts the probabilities of the wrong classes, which tell what else an image might have been. The
# factor $T^2$ keeps the size of the gradient the same at every temperature.

# %%
from collections.abc import Callable
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import apply_mlp, spread
from tqdm import tqdm

from jaxdiv import losses

# %% [markdown]
# ## The lines to paste
#
# Put your network in place of `apply_mlp`, and hand the function to `jax.grad` and the gradient to any optax optimiser.
# (Its last argument is for the losses below that draw random numbers.)


# %%
def distillation(params, batch, temperature, _key):
    """Hinton's loss, averaged over the batch."""
    student_logits = apply_mlp(params, batch.images)
    return jnp.mean(losses.distillation(student_logits, batch.teacher_logits, temperature=temperature))


# %% [markdown]
# ## The teacher <!-- K1 -->
#
# Five random splits of scikit-learn's digits: 1000 images to train on, 398 to choose settings by (validation), 399 to
# report on (test). On each split a teacher of 64-256-256-10 units learns from all 1000 labels, with dropout.

# %%
SEEDS = range(5)
CLASSES = 10

split = common.digits(SEEDS)
keys = jax.vmap(jax.random.key)(jnp.array(SEEDS))


def one_hot(labels):
    """Probabilities `[..., 10]` that are certain of the labels `[...]`."""
    return jax.nn.one_hot(labels, CLASSES)


def label_loss(logits, target_probs):
    """KL(target || softmax(logits)), averaged over the batch; for one-hot targets it is the cross-entropy."""
    return jnp.mean(losses.forward_kl_with_probs(logits, target_probs))


@jax.jit
@jax.vmap
def train_teacher(examples, key):
    """The teacher's parameters; the leading axis of everything is the seed."""

    def loss(params, batch, key):
        return label_loss(apply_mlp(params, batch.images, dropout=0.3, key=key), one_hot(batch.labels))

    init_key, fit_key = jax.random.split(key)
    params = common.init_mlp(init_key, [64, 256, 256, CLASSES])
    return common.fit(loss, params, examples, fit_key, steps=600, batch_size=100, learning_rate=1e-3)


accuracy = common.percent_correct
teachers = train_teacher(split.train, keys)
predict = jax.jit(jax.vmap(apply_mlp))
teacher_accuracy = accuracy(predict(teachers, split.test.images), split.test.labels)
print(f"The teacher recognises {spread(teacher_accuracy)} % of the test images.")

# %% [markdown]
# ## Nine ways to train a student of few images
#
# The student has 64-64-10 units and sees the first 30 (or 60) training images, nothing else. Every method tunes one
# number over five values, takes the same 600 steps of Adam on the same batches from the same initial weights, and is
# reported at the value with the best validation accuracy. The learning rate, where it is not tuned, is 0.01.
#
# - *Without the teacher*: hard labels, and four usual remedies for having little data.
# - *The teacher under another loss*: squared error of the logits (Ba & Caruana 2014) and of the softened probabilities.
#   These test the divergence alone.
# - *Half of the teacher*: distillation, after the teacher's logits of the nine less likely classes are replaced by
#   their mean. This tests what its wrong classes are worth.


# %%
class Batch(NamedTuple):
    """Images `[n, 64]`, their labels `[n]` and the teacher's logits for them `[n, 10]`."""

    images: jax.Array
    labels: jax.Array
    teacher_logits: jax.Array


def hard_labels(params, batch, _knob, _key):
    """Cross-entropy with the labels; its knob is the learning rate."""
    return label_loss(apply_mlp(params, batch.images), one_hot(batch.labels))


def weight_decay(params, batch, strength, key):
    """Hard labels and an L2 penalty."""
    return hard_labels(params, batch, None, key) + strength * sum(jnp.sum(weight**2) for weight, _bias in params)


def dropout(params, batch, rate, key):
    """Hard labels with hidden units dropped."""
    return label_loss(apply_mlp(params, batch.images, dropout=rate, key=key), one_hot(batch.labels))


def label_smoothing(params, batch, strength, _key):
    """Labels mixed with the uniform distribution (Szegedy et al. 2016)."""
    return label_loss(apply_mlp(params, batch.images), (1 - strength) * one_hot(batch.labels) + strength / CLASSES)


def mixup(params, batch, alpha, key):
    """Convex combinations of pairs of examples, weighted by a Beta(alpha, alpha) variable (Zhang et al. 2018)."""
    weight_key, partner_key = jax.random.split(key)
    weight = jax.random.beta(weight_key, alpha, alpha)
    partner = jax.random.permutation(partner_key, len(batch.labels))

    def mix(array):
        return weight * array + (1 - weight) * array[partner]

    return label_loss(apply_mlp(params, mix(batch.images)), mix(one_hot(batch.labels)))


def confidence_only(params, batch, temperature, key):
    """Distillation from a teacher that does not tell the less likely classes apart."""
    likeliest = one_hot(jnp.argmax(batch.teacher_logits, axis=-1))
    mean_of_others = jnp.sum((1 - likeliest) * batch.teacher_logits, axis=-1, keepdims=True) / (CLASSES - 1)
    flattened = jnp.where(likeliest == 1, batch.teacher_logits, mean_of_others)
    return distillation(params, batch._replace(teacher_logits=flattened), temperature, key)


def logit_mse(params, batch, _knob, _key):
    """Squared error of the logits; its knob is the learning rate."""
    return jnp.mean((apply_mlp(params, batch.images) - batch.teacher_logits) ** 2)


def probability_mse(params, batch, temperature, _key):
    """Squared error of the softened probabilities, scaled by T^2 as distillation is."""
    student_probs = jax.nn.softmax(apply_mlp(params, batch.images) / temperature)
    teacher_probs = jax.nn.softmax(batch.teacher_logits / temperature)
    return temperature**2 * jnp.mean((student_probs - teacher_probs) ** 2)


class Method(NamedTuple):
    """A loss `(params, batch, knob, key) -> []` and the values that its knob is tuned over."""

    name: str
    knob: str
    values: tuple[float, ...]
    loss: Callable


RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
METHODS = [
    Method("hard labels", "learning rate", RATES, hard_labels),
    Method("weight decay", "strength", (3e-5, 3e-4, 3e-3, 3e-2, 1e-1), weight_decay),
    Method("dropout", "rate", (0.1, 0.2, 0.3, 0.5, 0.7), dropout),
    Method("label smoothing", "strength", (0.05, 0.1, 0.2, 0.4, 0.8), label_smoothing),
    Method("MixUp", "alpha", (0.1, 0.3, 1.0, 3.0, 10.0), mixup),
    Method("confidence only", "T", TEMPERATURES, confidence_only),
    Method("logit MSE", "learning rate", RATES, logit_mse),
    Method("probability MSE", "T", TEMPERATURES, probability_mse),
    Method("distillation", "T", TEMPERATURES, distillation),
]


# %%
class Predictions(NamedTuple):
    """Students' logits `[value, seed, n, 10]` for the validation and the test images."""

    validation: jax.Array
    test: jax.Array


@jax.jit
def train_students(number, values, learning_rates, examples):
    """Parameters of a student for each value of the knob of `METHODS[number]` and each seed.

    Compiling takes longer than training here, so `lax.switch` lets one compiled function serve all methods. Equal keys
    give every method the same initial weights and batches: differences between methods are paired.
    """

    def loss(params, batch, key, value):
        return jax.lax.switch(number, [method.loss for method in METHODS], params, batch, value, key)

    student_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    options = {"sizes": (64, 64, CLASSES), "steps": 600, "batch_size": 50, "learning_rate": learning_rates}
    return common.sweep(loss, values, examples, student_keys, **options)


def train_all(title, methods, examples):
    """`Predictions` of the students of each method, by its name; shows progress."""
    predictions = {}
    for method in tqdm(methods, desc=title):
        rates = method.values if method.knob == "learning rate" else [1e-2] * len(method.values)
        params = train_students(METHODS.index(method), jnp.array(method.values), jnp.array(rates), examples)
        logits = (np.asarray(common.predict(params, part.images)) for part in (split.validation, split.test))
        predictions[method.name] = Predictions(*logits)
    return predictions


train_set = Batch(*split.train, predict(teachers, split.train.images))
ROWS = 840  # the size of every transfer set, so that one compilation serves all of them


def few_images(count):
    """The first training images of each seed; to repeat all of them equally often leaves their distribution alone."""
    return jax.tree.map(lambda array: jnp.concatenate([array[:, :count]] * (ROWS // count), axis=1), train_set)


SIZES = (30, 60)
few = {count: train_all(f"{count} images", METHODS, few_images(count)) for count in SIZES}


def choose(predictions):
    """Index of the value of each method that is best on validation, averaged over the seeds."""
    seen = {name: accuracy(logits.validation, split.validation.labels) for name, logits in predictions.items()}
    return {name: np.argmax(np.mean(values, axis=-1)) for name, values in seen.items()}


test_accuracy = {
    count: {name: accuracy(logits.test, split.test.labels) for name, logits in few[count].items()} for count in SIZES
}
chosen = {count: choose(few[count]) for count in SIZES}

for count in SIZES:
    print(f"\n{count} images: test accuracy in %, mean ± sd over the seeds; * is the value chosen on validation")
    for name, knob, values, _loss in METHODS:
        print(f"{name:16s}{knob:>14s}", end="")
        for index, value in enumerate(values):
            star = "*" if index == chosen[count][name] else " "
            print(f"{value:>9g}{star} {spread(test_accuracy[count][name][index]):>10s}", end="")
        print()


# %%
def reported(name, count=30):
    """Test accuracy `[seed]` of a method at its chosen value, for students of so many images."""
    return test_accuracy[count][name][chosen[count][name]]


def gain(name, count=30, over="hard labels"):
    """Difference `[seed]` of two reported accuracies, in points."""
    return reported(name, count) - reported(over, count)


print("Test accuracy in % at the chosen value, and its paired difference from hard labels in points")
print(f"{'':16s}" + "".join(f"{f'{count} images':>16s}{'gain':>14s}" for count in SIZES))
for name, *_ in METHODS:
    print(f"{name:16s}", end="")
    print("".join(f"{spread(reported(name, count)):>16s}{spread(gain(name, count)):>14s}" for count in SIZES))

# %%
plt.rcParams["axes.titlesize"] = "medium"
figure, (by_method, by_temperature) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")

COLORS = dict.fromkeys(["logit MSE", "probability MSE"], common.BLUE) | {"distillation": common.VERMILION}
for row, (name, *_) in enumerate(reversed(METHODS)):
    color = COLORS.get(name, common.BLACK)
    by_method.errorbar(reported(name).mean(), row, xerr=reported(name).std(ddof=1), fmt="o", capsize=3, color=color)
by_method.set_yticks(range(len(METHODS)), [name for name, *_ in reversed(METHODS)])
by_method.set_xlabel("test accuracy in % (mean ± sd, 5 seeds)")
by_method.set_title("30 images: only the teacher's wrong\nclasses help, under any of three losses")

CURVES = [
    ("distillation", "KL (distillation)", "o-", common.VERMILION, 1.0),
    ("probability MSE", "MSE of probabilities", "s--", common.BLUE, 1.06),
    ("confidence only", "KL, confidence only", "^:", common.BLACK, 0.94),
]
for name, label, style, color, shift in CURVES:
    curve = test_accuracy[30][name]
    at = shift * np.array(TEMPERATURES)  # side by side, so that the error bars do not hide each other
    error = curve.std(axis=-1, ddof=1)
    by_temperature.errorbar(at, curve.mean(axis=-1), error, fmt=style, capsize=3, color=color, label=label)
by_temperature.axhline(reported("hard labels").mean(), color=common.ORANGE, label="hard labels")
by_temperature.set_xscale("log", base=2)
by_temperature.set_xticks(TEMPERATURES, [f"{temperature:g}" for temperature in TEMPERATURES])
by_temperature.set(xlabel="temperature T (a pure number)", ylabel="test accuracy in %")
by_temperature.set_title("30 images: softening brings it out,\nand KL needs less of it than MSE")
by_temperature.set_ylim(bottom=57)  # room for the legend
by_temperature.legend(loc="lower center", ncols=2, frameon=False)
common.save_figure(figure, "distillation.png")

# %% [markdown]
# ## A class the student has never seen
#
# Now the student gets 840 images of which none is a 3. All it can learn about a 3 is how far the teacher finds other
# digits like one. It then knows the shape of a 3 but thinks it too rare, so Hinton et al. raise the bias of that class:
# here, until a tenth of the validation images are called a 3, for which one must know how common 3s are. Every method
# gets that bias, and the value of its knob that is best on validation with the bias.

# %%
MISSING = 3
PRIOR = 0.1


def without_missing(batch):
    """The first `ROWS` examples of each seed that are not of the missing class."""
    rows = np.stack([np.flatnonzero(labels != MISSING)[:ROWS] for labels in np.asarray(batch.labels)])
    return jax.vmap(lambda batch, rows: jax.tree.map(lambda array: array[rows], batch))(batch, rows)


def with_prior(logits):
    """Raises the bias of the missing class until it wins `PRIOR` of the validation images."""
    # The class wins an image once its bias exceeds the lead of the best other class: a quantile of that lead.
    lead = np.delete(logits.validation, MISSING, axis=-1).max(axis=-1) - logits.validation[..., MISSING]
    bias = np.quantile(lead, PRIOR, axis=-1)[..., None, None] * np.eye(CLASSES)[MISSING]
    return Predictions(logits.validation + bias, logits.test + bias)


def recall(logits):
    """Percentage of the test images of the missing class that are recognised."""
    is_missing = np.asarray(split.test.labels) == MISSING
    return 100 * np.sum((np.argmax(logits, axis=-1) == MISSING) & is_missing, axis=-1) / np.sum(is_missing, axis=-1)


compared = ("hard labels", "label smoothing", "logit MSE", "probability MSE", "distillation")
missing_methods = [method for method in METHODS if method.name in compared]
plain = train_all("a missing class", missing_methods, without_missing(train_set))
biased = {name: with_prior(logits) for name, logits in plain.items()}

chosen_missing = choose(biased)


def recalls(name, index=None):
    """Recall `[seed]` of the missing class without and with the bias, at the chosen value or another."""
    index = chosen_missing[name] if index is None else index
    return recall(plain[name].test[index]), recall(biased[name].test[index])


print(f"Trained without a {MISSING}: test accuracy and recall of the {MISSING}s in %, mean ± sd over the seeds")
print(f"{'':35s}{'all digits':>14s}{'with bias':>14s}{'only 3s':>14s}{'with bias':>14s}")
for name, knob, values, _loss in missing_methods:
    index = chosen_missing[name]
    overall = [accuracy(logits[name].test[index], split.test.labels) for logits in (plain, biased)]
    print(f"{name:16s}{f'{knob} {values[index]:g}':19s}", end="")
    print("".join(f"{spread(column):>14s}" for column in [*overall, *recalls(name)]))

print(f"\nRecall of the {MISSING}s in % by temperature, without and with the bias")
for name in ("probability MSE", "distillation"):
    for index, temperature in enumerate(TEMPERATURES):
        without, corrected = recalls(name, index)
        print(f"{name:16s}T = {temperature:<3g}{spread(without):>14s}{spread(corrected):>14s}")

# %% [markdown]
# ## When not to use it
#
# - Where the temperature is high anyway: squared error of the logits or of softened probabilities ties. What KL buys is
#   tolerance of a low one: at $T = 2$ it is ahead by 9 points, and finds 97 % of the 3s where squared error finds 26 %.
# - At $T = 1$: it then gains 3 points only.
# - For a teacher who only tells how sure it is: its confidence alone gains 0.7 ± 1.5 points.

# %%
at_2 = TEMPERATURES.index(2)
remedies = ("weight decay", "dropout", "label smoothing", "MixUp")
at_1 = test_accuracy[30]["distillation"][0] - reported("hard labels")
kl, mse = (test_accuracy[30][name][at_2] for name in ("distillation", "probability MSE"))
hard, smooth, distilled = (recalls(name) for name in ("hard labels", "label smoothing", "distillation"))
kl_recall, mse_recall = (recalls(name, at_2)[1] for name in ("distillation", "probability MSE"))

# Few images: distillation gains, on each split, and more than any control that lacks the teacher's wrong classes.
assert gain("distillation").mean() > 10
assert gain("distillation").min() > 5
assert gain("distillation", 60).mean() > 4
for control in (*remedies, "confidence only"):
    assert gain("distillation", over=control).mean() > 8

# The loss does not matter at its best setting; a low temperature does, and to squared error more than to KL.
for tie in ("logit MSE", "probability MSE"):
    assert abs(gain("distillation", over=tie).mean()) < 4
assert (gain("distillation") - at_1).mean() > 6
assert (kl - mse).mean() > 2

# A missing class: no student of labels finds it, distillation does, and more so than they when all get the bias.
assert max(hard[0].max(), smooth[0].max()) < 2
assert distilled[0].mean() > 50
assert distilled[1].mean() > 80
assert (distilled[1] - hard[1]).mean() > 30
assert (distilled[1] - smooth[1]).mean() > 15
assert (kl_recall - mse_recall).mean() > 30
for tie in ("logit MSE", "probability MSE"):
    assert abs(distilled[1] - recalls(tie)[1]).mean() < 8
print("All claims hold.")
