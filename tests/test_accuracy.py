"""The promised ulps of KL and Jensen-Shannon divergences from logits, on thousands of rows and on a long one.

The reference is numpy's longdouble in a form of its own: from c = log(p / q), whose differences are taken first.
"""

import functools

import jax
import numpy as np
import pytest
from marks import with_all

from jaxdiv import losses

ROWS = 400  # to each temperature
TEMPERATURES = (None, 0.01, 0.7, 7.3, 100)
TINY = 1e-28  # below, underflow costs digits in float32


def rows(k, count):
    """Logits in float32: scales from 0.1 to 50, differences from 1e-6 to all, every other pair shifted apart by 1e4."""
    rng = np.random.default_rng(k)
    scale = 10 ** rng.uniform(-1, np.log10(50), (count, 1))
    p = scale * rng.standard_normal((count, k))
    near = p + 10 ** rng.uniform(-6, 0, (count, 1)) * rng.standard_normal((count, k))
    q = np.where(np.arange(count)[:, None] % 3 == 0, scale * rng.standard_normal((count, k)), near)
    return p.astype(np.float32), (q + 1e4 * (np.arange(count)[:, None] % 2)).astype(np.float32)


class Exact:
    """Both laws of each row, and their log-ratio to its own accuracy."""

    def __init__(self, p, q, temperature):
        self.temperature = np.longdouble(1 if temperature is None else np.float32(temperature))
        a, b = p.astype(np.longdouble), q.astype(np.longdouble)
        self.top = p.argmax(-1)[:, None]
        a, b = ((x - np.take_along_axis(x, self.top, -1)) / self.temperature for x in (a, b))
        self.less = b - a
        self.p, self.q = self.softmax(a), self.softmax(b)
        # log sum p exp(r) of the differences r of the logits
        gain = np.log1p(self.sum(self.p * np.expm1(np.minimum(self.less, 1))))
        self.c = np.where(self.less.max(-1, keepdims=True) < 1, gain, self.log_sum(b) - self.log_sum(a)) - self.less

    @staticmethod
    def sum(x):
        return x.sum(-1, keepdims=True)

    def softmax(self, x):
        x = np.exp(x - x.max(-1, keepdims=True))
        return x / self.sum(x)

    def log_sum(self, x):
        return x.max(-1, keepdims=True) + np.log(self.sum(np.exp(x - x.max(-1, keepdims=True))))

    def kl(self):
        """Value, and gradients in the two logits, each with the scale its error is measured against."""
        c, p, q = self.c, self.p, self.q
        series = c * c * (1 / np.longdouble(2) - c / 6 + c * c / 24 - c**3 / 120)
        small = abs(c) < 1e-3
        value = self.sum(np.where(small, p * series, p * (c - 1) + q))
        in_p = p * (-self.less - self.sum(p * -self.less)) / self.temperature
        in_q = np.where(small, p * np.expm1(-np.where(small, c, 0)), q - p) / self.temperature
        # Where nearly all mass is on one event, its entry is what the others leave.
        np.put_along_axis(in_q, self.top, np.take_along_axis(in_q, self.top, -1) - self.sum(in_q), -1)
        return value, (in_p, abs(in_p)), (in_q, abs(in_q))

    def js(self):
        p, q = self.p, self.q
        both = np.where(p + q == 0, 1, p + q)
        difference = np.where(abs(self.c) < 0.5, -p * np.expm1(-np.clip(self.c, -1, 1)), p - q)
        v, rest = difference / both, 2 * np.minimum(p, q) / both
        far = (1 + abs(v)) * np.log1p(abs(v)) + rest * np.log(np.where(rest == 0, 1, rest))
        near = v**2 * (1 + v**2 / 6 + v**4 / 15 + v**6 / 28 + v**8 / 45)
        value = self.sum(both / 4 * np.where(abs(v) < 1e-2, near, far))
        return value, self.js_gradient(p, 2 * p / both), self.js_gradient(q, 2 * q / both)

    def js_gradient(self, p, ratio):
        log = np.log(np.where(p == 0, 1, ratio))
        return p * (log - self.sum(p * log)) / 2 / self.temperature, abs(p * log) / 2 / self.temperature


def ulps(got, true, scale):
    size = np.maximum(abs(true), scale)
    return float(np.max(abs(got.astype(np.longdouble) - true) / np.spacing(np.maximum(size, TINY).astype(np.float32))))


@functools.cache
def compiled(name, warm):
    keywords = (lambda t: {"temperature": t}) if warm else (lambda t: {})
    loss = {"kl": losses.forward_kl, "js": losses.js}[name]
    return jax.jit(
        lambda q, p, t, weights: (
            loss(q, p, **keywords(t)),
            jax.grad(lambda p, q: (weights * loss(q, p, **keywords(t))).sum(), (0, 1))(p, q),
        )
    )


def assert_promised(name, p, q, temperature):
    t = np.float32(1 if temperature is None else temperature)
    got, gradients = compiled(name, temperature is not None)(q, p, t, np.ones(len(p), np.float32))
    true, *true_gradients = getattr(Exact(p, q, temperature), name)()
    assert ulps(np.asarray(got)[:, None], true, 0) <= 16
    for gradient, (true_gradient, scale) in zip(gradients, true_gradients, strict=True):
        largest = np.maximum(abs(true_gradient), scale).max(-1, keepdims=True)
        assert ulps(np.asarray(gradient), true_gradient, largest) <= 32


@pytest.mark.parametrize("temperature", [*TEMPERATURES[:2], *with_all(*TEMPERATURES[2:])])
@pytest.mark.parametrize("k", [10, *with_all(2, 1000)])
@pytest.mark.parametrize("name", ["kl", "js"])
def test_the_promise_is_kept_on_many_rows(name, k, temperature):
    assert_promised(name, *rows(k, ROWS), temperature)


@pytest.mark.parametrize("name", ["kl", *with_all("js")])
def test_the_promise_is_kept_on_a_vocabulary(name):
    assert_promised(name, *rows(131072, 2), None)
