"""A graph to every verb: pictures made at build, and the extension of griffe that puts them beside the formulas.

Over p, `D(Bernoulli(p), Bernoulli(0.3))`; of normal laws, over the mean and over the scale of the first.
"""

import functools
import json
import re
from pathlib import Path

import griffe

FOLDER = Path(__file__).parents[1] / "build" / "docs" / "assets" / "graphs"
Q = 0.3
OPTIONS = {"renyi": {"alpha": (0.5, 2.0)}, "amari": {"alpha": (0.5, 2.0)}, "generalized_js": {"beta": (0.1, 0.5)}}
OPTIONS["rescaled_js"] = OPTIONS["generalized_js"]
DISCRETE = ("categorical", "simplex", "bernoulli")


class Graphs(griffe.Extension):
    """Shows the graph of a verb under the first line of its docstring, and examples as code."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Adds the picture that `draw` made for this function, if any."""
        if not obj.docstring:
            return
        obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        family, _, name = obj.path.removeprefix("jaxdiv.").partition(".")
        if obj.is_function and (found := _pictures().get(f"{_source(family)}.{name}")):
            file, words = found
            title, _, rest = obj.docstring.value.partition("\n")
            image = f'<img class="graph" src="../assets/graphs/{file}" alt="{words}" loading="lazy">'
            obj.docstring.value = f"{title}\n\n{image}\n{rest}"


@functools.cache
def _pictures():
    file = FOLDER / "pictures.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _source(family):
    return "bernoulli" if family in DISCRETE else family


def draw() -> None:
    """Writes the pictures, and `pictures.json`: which function has which, and its description."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for key, curves, axis in (*_of_bernoulli(), *_of_losses(), *_of_gaussians()):
        file = f"{key}.svg"
        _save(FOLDER / file, curves, axis)
        pictures[key] = file, f"{key.split('.')[1]} over {axis}"
    (FOLDER / "pictures.json").write_text(json.dumps(pictures))


def _numbers():
    import numpy as np

    return np.linspace(0, 1, 101, dtype=np.float32)


def _of_bernoulli():
    import jax
    import jax.numpy as jnp

    from jaxdiv import bernoulli

    p = _numbers()
    logits, q = jnp.log(p) - jnp.log1p(-p), jnp.log(Q) - jnp.log1p(-Q)
    for name in _verbs(bernoulli):
        others = () if name == "entropy" else (q,)
        evaluate = functools.partial(_all, jax.vmap, getattr(bernoulli, name), logits, others)
        yield f"bernoulli.{name}", _curves(name, evaluate, p), f"p, q = {Q}"


def _of_losses():
    import inspect

    import jax.numpy as jnp
    import numpy as np

    from jaxdiv import losses

    p = _numbers()
    logits, target = (jnp.log(jnp.stack([1 - x, x], -1)) for x in (p, np.full_like(p, Q)))
    for name in _verbs(losses):
        wanted = list(inspect.signature(getattr(losses, name)).parameters)
        if wanted[:2] == ["logits", "target_logits"] and name != "bernoulli_kl":
            evaluate = functools.partial(_all, lambda loss: loss, getattr(losses, name), logits, (target,))
            yield f"losses.{name}", _curves(name, evaluate, p), f"predicted p, target {Q}"


def _all(lift, verb, xs, others, options):
    return lift(lambda x: verb(x, *others, **options))(xs)


def _curves(name, evaluate, p):
    (option, values), *_ = OPTIONS.get(name, {"": (None,)}).items()
    if not option:
        return {"": (p, evaluate({}))}
    return {f"{option} = {value}": (p, evaluate({option: value})) for value in values}


def _of_gaussians():
    import jax.numpy as jnp

    from jaxdiv import gaussian

    x = jnp.linspace(-3, 3, 121)
    for name in _verbs(gaussian):
        if name not in ("convert", "standard", "stack", "log_density", "sample"):
            options = {key: values[0] for key, values in OPTIONS.get(name, {}).items()}
            verb = functools.partial(getattr(gaussian, name), **options)
            others = () if name == "entropy" else (gaussian.Normal(jnp.zeros(()), jnp.ones(())),)
            curves = {
                "N(x, 1) from N(0, 1)": _over_laws(verb, gaussian.Normal(x, jnp.ones_like(x)), others),
                "N(0, 2^x) from N(0, 1)": _over_laws(verb, gaussian.Normal(jnp.zeros_like(x), 2**x), others),
            }
            yield f"gaussian.{name}", {label: (x, y) for label, y in curves.items()}, "x"


def _over_laws(verb, laws, others):
    import jax

    return jax.vmap(lambda law: verb(law, *others))(laws)


def _verbs(module):
    import inspect

    own = {name for name in vars(module) if not name.startswith("_")} - {"check", "mean", "Normal", "jitted"}
    functions = (name for name in own if callable(getattr(module, name)) and not inspect.isclass(getattr(module, name)))
    return sorted(name for name in functions if getattr(getattr(module, name), "__module__", "") == module.__name__)


def _save(file, curves, axis):
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grey = "#7f8c8d"  # readable on white and on black
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxdiv", "text.color": grey, "font.size": 10}):
        figure, axes = pyplot.subplots(figsize=(4.2, 2.3), layout="constrained")
        for (label, (x, y)), colour, style in zip(curves.items(), ("#009688", "#e8590c"), ("-", "--"), strict=False):
            y = np.asarray(y)
            axes.plot(x, np.where(np.isfinite(y), y, np.nan), style, color=colour, label=label or None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(grey)
        axes.tick_params(colors=grey)
        axes.set_xlabel(axis, color=grey)
        low, high = axes.get_ylim()
        finite = np.concatenate([np.asarray(y)[np.isfinite(y)] for _, y in curves.values()])
        axes.set_ylim(min(0, low), min(high, max(4 * np.median(np.abs(finite)), 0.1)) if finite.max() > 0 else high)
        if any(curves):
            axes.legend(
                frameon=False, labelcolor=grey, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2
            )
        figure.savefig(file, transparent=True, metadata={"Date": None})
        pyplot.close(figure)
