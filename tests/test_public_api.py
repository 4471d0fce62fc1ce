"""What users may rely on: names, signatures, docstrings, errors, and a light import."""

import copy
import functools
import inspect
import pathlib
import pickle
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_exponential_family
import test_gaussian
import test_gaussian_forms
from catalogue import CATALOGUE

import jaxdiv
from jaxdiv import exponential_family, gaussian, losses, simplex
from jaxdiv._discrete import terms
from jaxdiv._discrete.verbs import sum_over_events
from jaxdiv._selfcheck import discrete

PAIR_VERBS = {
    "kl": "(p, q)",
    "jeffreys": "(p, q)",
    "js": "(p, q, *, weight=0.5)",
    "js_distance": "(p, q)",
    "renyi": "(p, q, *, alpha)",
    "amari": "(p, q, *, alpha)",
    "squared_hellinger": "(p, q)",
    "hellinger_distance": "(p, q)",
    "fisher_rao_distance": "(p, q)",
    "bhattacharyya": "(p, q)",
    "chernoff": "(p, q)",
    "total_variation": "(p, q)",
    "chi2": "(p, q)",
    "triangular": "(p, q)",
    "cross_entropy": "(p, q)",
    "entropy": "(p)",
}


GAUSSIAN_VERBS = {name: signature for name, signature in PAIR_VERBS.items() if name != "triangular"} | {
    "geometric_js": "(p, q, *, weight=0.5)",
    "squared_wasserstein2": "(p, q)",
    "wasserstein2_distance": "(p, q)",
}

EXPONENTIAL_VERBS = ["kl", "jeffreys", "js", "js_distance", "renyi", "amari", "squared_hellinger", "hellinger_distance"]
EXPONENTIAL_VERBS += ["bhattacharyya", "chernoff", "chi2"]
MEMBERS = ("poisson", "exponential", "gamma", "beta", "dirichlet")  # families with names


def _with_temperature(signature):
    return (signature[:-1] + (", " if "*" in signature else ", *, ") + "temperature=1.0)").replace("(, ", "(")


def _losses():
    lifted, divided = "axis=-1, where=None", "axis_name=None"
    lifted_at = f"{lifted}, temperature=1.0, {divided}"
    one = {"js": "weight=0.5, ", "renyi": "alpha, ", "amari": "alpha, "}
    one |= {"generalized_js": "beta, ", "rescaled_js": "beta, "}
    both = ["forward_kl", "reverse_kl", "jeffreys", "js", "total_variation", "squared_hellinger", "renyi", "amari"]
    both += ["cross_entropy", "generalized_js", "rescaled_js"]
    yield from ((n, f"(logits, target_logits, *, {one.get(n, '')}{lifted_at})") for n in both)
    for n in ("forward_kl", "cross_entropy"):
        yield f"{n}_with_probs", f"(logits, target_probs, *, {lifted_at})"
    yield "with_probs", "(loss)"
    smoothed = f"{lifted}, temperature=1.0, label_smoothing=0.0, {divided}"
    yield "cross_entropy_with_labels", f"(logits, labels, *, {smoothed})"
    yield "js_of", f"(logits_of_views, *, weights=None, {lifted_at})"
    yield "bernoulli_kl", "(logits, target_logits, *, where=None, temperature=1.0)"
    yield "distillation", f"(student_logits, teacher_logits, *, temperature, {lifted}, {divided})"
    yield "confidence_penalty", f"(logits, *, {lifted_at})"
    for name, fields in (
        ("standard_normal_kl", "loc, log_scale"),
        ("gaussian_kl", "loc, log_scale, prior_loc, prior_log_scale"),
    ):
        yield name, f"({fields}, *, {lifted}, {divided})"
        yield f"{name}_per_component", f"({fields}, *, where=None)"
    yield "mean", "(per_example, *, where=None, weights=None, denominator=None, axis_name=None)"


def _linear(first=""):
    return (
        f"(student_hidden, student_head, teacher, divergence, *others, {first}bias=None, logit_scale=None, "
        "soft_cap=None, where=None, class_axis=1, memory=67108864, axis_name=None, **options)"
    )


API = {
    "": {
        "pairwise": "(divergence, ps, qs=None, *, symmetric=False, block_size=None, progress=False)",
        "nearest": "(divergence, queries, references, *, k, block_size=None, progress=False)",
        "pairwise_kl_by_matmul": "(ps, qs=None)",
        "pairwise_mean": "(divergence, ps, qs=None, *, weights=None, block_size=None, progress=False)",
    },
    "categorical": {name: _with_temperature(signature) for name, signature in PAIR_VERBS.items()}
    | {"js_of": "(ps, *, weights=None)", "check": "(p, *, axis=-1)"},
    "simplex": PAIR_VERBS
    | {
        "js_of": "(ps, *, weights=None)",
        "mutual_information": "(joint)",
        "from_counts": "(counts, *, pseudo_count=0.0, axis=-1)",
        "dirichlet_smoothed": "(counts, background, *, strength)",
        "check": "(p, *, axis=-1)",
    },
    "bernoulli": PAIR_VERBS | {"check": "(p)"},
    "gaussian": GAUSSIAN_VERBS
    | {"convert": "(law, form)", "standard": "(like)", "check": "(p, *, axis=-1)"}
    | {"stack": "(laws)", "log_density": "(p, x)", "sample": "(p, key, *, shape=())"},
    "mixture": dict.fromkeys(("kl_interval", "js_interval"), "(p, q, *, key=None, samples=1024, nodes=64)")
    | {"check": "(p)", "log_density": "(p, x)"},
    "exponential_family": {
        name: signature.replace("(", "(log_normalizer, ")
        for name, signature in GAUSSIAN_VERBS.items()
        if name in EXPONENTIAL_VERBS
    }
    | dict.fromkeys(MEMBERS, "(parameters)"),
    "clustering": {
        "centroid": "(divergence, laws, *, weights=None, side='right')",
        "kmeans": "(divergence, laws, k, *, key, weights=None, side='right', steps=100, starts=1)",
    },
    "embedding": dict.fromkeys(("js_features", "js_features_of_logits"), "(p, *, nodes=None)"),
    "metrics": {
        "empty": "(groups=None)",
        "update": "(state, values, *, weights=None, where=None, groups=None)",
        "merge": "(a, b)",
        "compute": "(state)",
        "bins": "(values, edges)",
        "drift": "(reference, current, *, pseudo_count=0.0, left_out=False)",
        "from_counts": "(counts, *, left_out=0)",
        "edges": "(reference, bins)",
        "holm": "(p_values)",
        "benjamini_hochberg": "(p_values)",
        "drift_table": "(reference, current, *, bins=10, pseudo_count=0.0, correction=<function holm>)",
        "calibration": "(confidence, outcome)",
    },
    "losses": dict(_losses()),
    "fused": {
        "linear_divergence": _linear(),
        "mean_linear_divergence": _linear("weights=None, denominator=None, "),
    },
    "topk": {
        "from_indices": "(logits, indices, *, temperature=1.0, axis_name=None)",
        "from_logits": "(logits, k, *, temperature=1.0, axis_name=None)",
        "lift": "(loss, *, tail)",
    },
    "objectives": {
        "softened": "(loss, *, temperature)",
        "hard_and_soft": "(loss, *, weight)",
        "symmetric": "(loss)",
        "consistency": "(loss, divergence=<function forward_kl>, *, weight)",
        "annealed": "(loss, schedule)",
        "free_bits": "(per_component, minimum)",
        "adversarial_direction": "(divergence, x, key, *, iterations=1)",
        "adversarial_example": "(divergence, x, key, *, radius, step_size, iterations=10)",
    },
    "transforms": {
        "curvature_vector_product": "(divergence, outputs, params)",
        "natural_gradient": "(damping=0.001, iterations=10)",
        "kl_trust_region": "(max_divergence, *, max_scale=1.0, backtracks=10, shrink=0.5)",
        "skip_large_divergence": "(max_divergence)",
        "adaptive_coefficient": "(target, rule, *, initial=1.0, floor=0.01, limit=1000000.0)",
        "doubling": "(tolerance=1.5)",
        "proportional": "(horizon, *, clip=0.2)",
        "dual": "(learning_rate)",
    },
    "estimators": {
        **dict.fromkeys(("k1", "k2", "k3"), "(log_p, log_q, *, where=None, max_log_ratio=None)"),
        "f_divergence": "(name, log_p, log_q, *, log_behaviour=None, where=None, max_log_ratio=None, **parameters)",
        "link": "(name, log_ratio, **parameters)",
        "sequence_sum": "(terms, log_p, *, log_behaviour=None, where=None)",
        "mean": "(values, *, weights=None, where=None)",
        "monte_carlo": "(name, sample, log_p, log_q, *, key, samples, **parameters)",
        "knn_kl": "(xs, ys, *, k=1)",
        "donsker_varadhan": "(scores_p, scores_q, *, moving=None, where_p=None, where_q=None)",
        "update_log_mean": "(state, scores_q, *, decay, where_q=None)",
        "nwj": "(scores_p, scores_q, *, where_p=None, where_q=None)",
        "info_nce": "(scores, *, where=None)",
    },
    "elementary": {"expm1x": "(x)", "kl_div": "(p, q)", "rel_entr": "(p, q)"},
}
OF_PROBABILITIES = ("categorical", "simplex", "bernoulli")
FUNCTIONS = [(module, name) for module, names in API.items() for name in names]
# What takes more than arrays has its bad arguments in its own tests.
OF_OTHERS = ("check", "convert", "cross_entropy_with_labels", "monte_carlo", "update_log_mean", "with_probs")
OF_OTHERS += ("log_density", "sample", "stack", *MEMBERS)
OTHERS = ("", "clustering", "fused", "metrics", "objectives", "topk", "transforms")
COMPUTING = [(module, name) for module, name in FUNCTIONS if name not in OF_OTHERS and module not in OTHERS]


def find(module, name):
    return getattr(getattr(jaxdiv, module) if module else jaxdiv, name)


def _public_names(module):
    members = inspect.getmembers(module, lambda x: inspect.isfunction(x) and x.__module__ == module.__name__)
    return {name for name, _ in members if not name.startswith("_")}


def test_the_package_lists_its_names():
    assert sorted(jaxdiv.__all__) == jaxdiv.__all__
    assert set(jaxdiv.__all__) == {name for name in API if name} | set(API[""])


@pytest.mark.parametrize("name", [name for name in API if name])
def test_a_module_has_exactly_the_names_of_the_list(name):
    module = getattr(jaxdiv, name)
    assert set(getattr(module, "__all__", _public_names(module))) == set(API[name])


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_a_signature_is_the_promised_one(module, name):
    parameters = inspect.signature(find(module, name)).parameters.values()
    bare = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
    assert re.sub(r" at 0x\w+", "", str(bare)) == API[module][name]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_a_docstring_says_formula_shapes_zeros_and_shows_an_example(module, name):
    text = inspect.getdoc(find(module, name))
    assert "$" in text.split("\n\n")[0], "the summary has the formula"
    assert re.search(r"\[[^\]]*\]|shape", text), "shapes"
    assert re.search(r"\b0\b|zero", text), "what zeros do"
    assert "Example" in text
    assert ">>>" in text
    assert "Args:" in text
    for parameter in inspect.signature(find(module, name)).parameters:
        assert f"{parameter}: " in text


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_a_public_function_pickles_and_copies(module, name):
    function = find(module, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


# Verbs that tests go through by name.
BY_NAME = {
    "gaussian": {*test_gaussian_forms.VERBS, *test_gaussian.OF_ROOTS[np.float32]},
    "exponential_family": set(test_exponential_family.VERBS),
    **{family: {row.verb for row in CATALOGUE if row.family.name == family} for family in OF_PROBABILITIES},
}
TEXTS = [
    path.read_text()
    for path in pathlib.Path(__file__).parent.glob("test_*.py")
    if path.name not in ("test_public_api.py", "test_docstrings.py", "test_readme.py")
]


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, name in FUNCTIONS if name != "check"])
def test_a_public_function_is_called_by_a_test(module, name):
    """By a test of its numbers, beyond those of signatures and examples; `check`, which has none, is further below."""
    spelled = re.compile(rf"\b{module or 'jaxdiv'}\.{name}\b")
    if module in OF_PROBABILITIES and name == "js_of":  # of each family in turn
        spelled = re.compile(rf"\bfamily\.{name}\b")
    assert name in BY_NAME.get(module, ()) or any(map(spelled.search, TEXTS))


# ---------------------------------------------------------------- records

OF_AFFINITIES = {"renyi", "bhattacharyya", "chernoff"}  # logarithms of a sum that is near 1
WITHIN_JS = {"skewed_js", "rescaled_js"}  # js with a weight, and what losses alone make of it


def test_every_record_has_a_definition_a_row_of_the_catalogue_and_a_verb_of_its_name():
    assert set(discrete.TERMS) == {*terms.BY_NAME, "cross_entropy"}
    assert set(discrete.DEFINITIONS) == {name for name, signature in PAIR_VERBS.items() if signature != "(p)"}
    assert set(terms.BY_NAME) <= set(discrete.DEFINITIONS) | WITHIN_JS
    for family in OF_PROBABILITIES:
        assert {row.verb for row in CATALOGUE if row.family.name == family} == set(discrete.DEFINITIONS)


@pytest.mark.parametrize("family", OF_PROBABILITIES)
def test_every_verb_that_is_a_sum_carries_its_record(family):
    verbs = {name: getattr(getattr(jaxdiv, family), name) for name in discrete.DEFINITIONS}
    carried = {name: sum_over_events(verb) for name, verb in verbs.items()}
    assert {name for name, of in carried.items() if of is None} == OF_AFFINITIES
    of = {name: of.divergence for name, of in carried.items() if of}
    assert all(of[name] is divergence for name, divergence in terms.BY_NAME.items() if name not in WITHIN_JS)
    assert set(of.values()) == {*terms.BY_NAME.values(), terms.cross_entropy} - {terms.BY_NAME[x] for x in WITHIN_JS}


def test_a_partial_that_fixes_a_number_of_the_record_carries_it_and_no_other_function_does():
    assert sum_over_events(functools.partial(jaxdiv.simplex.amari, alpha=2.0)).divergence is terms.amari
    assert sum_over_events(functools.partial(jaxdiv.simplex.js, weight=0.1)) is None
    assert sum_over_events(lambda p, q: jaxdiv.simplex.js(p, q)) is None
    assert sum_over_events(jaxdiv.losses.js) is None


# ---------------------------------------------------------------- errors

NUMBERS = {"alpha": 0.5, "beta": 0.5, "temperature": 2.0, "strength": 1.0}


LAWS = {
    "gaussian": lambda make: jaxdiv.gaussian.Normal(make(1), make(1)),
    "mixture": lambda make: jaxdiv.mixture.GaussianMixture(make(1), jaxdiv.gaussian.Normal(make(1), make(1))),
}


def _arguments(module, name, make):
    """The positional arguments of a function, of arrays from `make(rank)`, and the numbers it requires."""
    parameters = inspect.signature(find(module, name)).parameters.values()
    rank = {"bernoulli": 0, "losses": 2}.get(module, 1)
    rank = {"js_of": 2, "mutual_information": 2, "knn_kl": 2, "info_nce": 2}.get(name, rank)
    argument = LAWS.get(module, lambda make: make(rank))
    if (module, name) == ("gaussian", "total_variation"):  # of one component

        def argument(make):
            return jaxdiv.gaussian.Normal(make(0), make(0))

    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    positional = [argument(make) for name in names if name not in ("log_normalizer", "name")]
    required = {p.name: NUMBERS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    return positional, required


def _call(module, name):
    """The function of arrays alone."""
    first = {"exponential_family": (lambda x: jnp.sum(jnp.exp(x)),)}.get(
        module, ("kl",) * (name in ("f_divergence", "link"))
    )
    return functools.partial(find(module, name), *first)


def _message(error, module, name):
    text = str(error.value).split("\n")[0]  # jax appends a line about its traceback
    assert text.startswith(f"{module}.{name} "), "who"
    assert "got" in text, "what came"
    assert text.endswith("."), text
    return text


@pytest.mark.parametrize(("module", "name"), COMPUTING)
def test_right_inputs_pass(module, name):
    arrays, numbers = _arguments(module, name, lambda rank: jnp.full((3,) * rank, 1 / 3 if rank < 2 else 1 / 9))
    jax.eval_shape(lambda *arrays: _call(module, name)(*arrays, **numbers), *arrays)


@pytest.mark.parametrize(("module", "name"), [x for x in COMPUTING if x[0] != "elementary"])
def test_a_wrong_dtype_is_a_type_error_that_names_the_remedy(module, name):
    wrong = bool if name in ("from_counts", "dirichlet_smoothed") else int
    arrays, numbers = _arguments(module, name, lambda rank: jnp.ones((3,) * rank, wrong))
    with pytest.raises(TypeError) as error:
        jax.eval_shape(lambda *arrays: _call(module, name)(*arrays, **numbers), *arrays)
    assert "asarray" in _message(error, module, name) or "astype" in str(error.value)


# For an exponential family a list is a structure of parameters.
@pytest.mark.parametrize(("module", "name"), [x for x in COMPUTING if x[0] not in ("elementary", "exponential_family")])
def test_a_list_is_a_type_error_that_names_the_remedy(module, name):
    arrays, numbers = _arguments(module, name, lambda rank: [0.5, 0.5])
    with pytest.raises(TypeError, match=r"jax\.numpy\.asarray"):
        _call(module, name)(*arrays, **numbers)


@pytest.mark.parametrize(
    ("module", "name"), [x for x in COMPUTING if x[0] in OF_PROBABILITIES or (x[0] in LAWS and x[1] != "standard")]
)
def test_a_wrong_rank_is_a_value_error_that_names_the_remedy(module, name):
    if name == "from_counts":  # takes any shape but a scalar
        arrays, numbers = [jnp.ones(())], {}
    else:
        arrays, numbers = _arguments(module, name, lambda rank: jnp.ones((3,) * (rank + 1)))
    with pytest.raises(ValueError, match="got") as error:
        jax.eval_shape(lambda *arrays: _call(module, name)(*arrays, **numbers), *arrays)
    text = _message(error, module, name)
    if name in PAIR_VERBS and len(arrays) == 2:
        bound = f"functools.partial({module}.{name}, {', '.join(f'{x}=...' for x in numbers)})"
        remedies = [f"jax.vmap({bound if numbers else f'{module}.{name}'})", "jaxdiv.pairwise"]
        assert all(remedy in text for remedy in remedies)
        has_loss = hasattr(losses, f"bernoulli_{name}" if module == "bernoulli" else name) or name == "kl"
        assert ("jaxdiv.losses" in text) == (module in OF_PROBABILITIES and has_loss)


SHAPED = [x for x in COMPUTING if x[0] in ("categorical", "simplex", "losses") and x[1] != "mean"]


@pytest.mark.parametrize(("module", "name"), SHAPED)
def test_unequal_or_empty_shapes_are_a_value_error(module, name):
    arrays, numbers = _arguments(module, name, lambda rank: jnp.ones((3,) * rank))
    if len(arrays) >= 2:
        arrays[1] = jnp.ones((*arrays[1].shape[:-1], 4))
    elif name == "from_counts":
        arrays = [jnp.ones(())]
    else:
        arrays = [jnp.ones((*arrays[0].shape[:-1], 0))]
    with pytest.raises(ValueError, match="got") as error:
        jax.eval_shape(lambda *arrays: _call(module, name)(*arrays, **numbers), *arrays)
    _message(error, module, name)


@pytest.mark.parametrize(
    ("module", "name", "parameter"),
    [
        (module, name, parameter)
        for module, name in COMPUTING
        for parameter in ("alpha", "beta", "weight", "temperature", "strength", "pseudo_count")
        if parameter in inspect.signature(find(module, name)).parameters
    ],
)
def test_a_number_that_is_an_array_or_complex_is_refused(module, name, parameter):
    arrays, numbers = _arguments(module, name, lambda rank: jnp.ones((3,) * rank) / 3)
    with pytest.raises(ValueError, match=rf"^{module}.{name} takes {parameter} as one number; got {parameter}\[2\]"):
        _call(module, name)(*arrays, **(numbers | {parameter: jnp.ones(2)}))
    with pytest.raises(TypeError, match=rf"^{module}.{name} takes {parameter} as a real number; got complex"):
        _call(module, name)(*arrays, **(numbers | {parameter: 1j}))


@pytest.mark.parametrize("axis", [2, (0, 0), ()])
def test_a_wrong_axis_of_a_loss_is_a_value_error(axis):
    with pytest.raises(ValueError, match=r"^losses.forward_kl takes .*; got axis=.* for target_logits\[2, 3\]\."):
        jaxdiv.losses.forward_kl(jnp.ones((2, 3)), jnp.ones((2, 3)), axis=axis)


def test_a_wrong_mask_is_refused():
    logits = jnp.ones((2, 3))
    with pytest.raises(TypeError, match=r"boolean mask; got where float32\[3\]"):
        jaxdiv.losses.js(logits, logits, where=jnp.ones(3))
    with pytest.raises(ValueError, match=r"got where\[2\] for \[2, 3\]"):
        jaxdiv.losses.js(logits, logits, where=jnp.ones(2, bool))


def test_weights_must_match_the_laws():
    with pytest.raises(ValueError, match=r"one weight to a law; got ps\[2, 3\] and weights\[3\]"):
        jaxdiv.simplex.js_of(jnp.full((2, 3), 1 / 3), weights=jnp.ones(3) / 3)


def test_pairwise_needs_a_batch():
    with pytest.raises(ValueError, match=r"common first axis; got ps\[\]"):
        jaxdiv.pairwise(jaxdiv.categorical.kl, jnp.array(1.0))


class Sparse:
    """As jax, scipy and torch have them."""

    def todense(self):
        return np.ones(2)


BATCH, FULL = jnp.ones((2, 3)), gaussian.Normal(jnp.zeros(8), jnp.ones(8))
# What others ran into: the call, the error, and the part of its message that names the remedy.
REMEDIES = {
    "vocabularies of two lengths": (
        lambda: losses.forward_kl(jnp.ones((2, 100)), jnp.ones((2, 104))),
        ValueError,
        r"jax.numpy.pad, and mask .* where=jax.numpy.arange\(104\) < 100",
    ),
    "a shape that broadcasts": (
        lambda: losses.forward_kl(BATCH, jnp.ones((1, 3))),
        ValueError,
        r"jax.numpy.broadcast_to",
    ),
    "an order by keyword": (
        lambda: simplex.renyi(BATCH, BATCH, alpha=2.0),
        ValueError,
        r"jax.vmap\(functools.partial\(simplex.renyi, alpha=...\)\)",
    ),
    "an order of members by keyword": (
        lambda: exponential_family.renyi(exponential_family.dirichlet, BATCH, BATCH, alpha=2.0),
        ValueError,
        r"functools.partial\(exponential_family.renyi, exponential_family.dirichlet, alpha=...\)",
    ),
    "unequal events": (lambda: simplex.kl(jnp.ones(2), jnp.ones(3)), ValueError, r"one number for each event in both"),
    "one event": (lambda: simplex.kl(jnp.array(1.0), jnp.array(1.0)), ValueError, r"one number for each event; "),
    "one event of a loss": (
        lambda: losses.forward_kl(1.0, 1.0),
        ValueError,
        r"got target_logits\[\]. Pass one number for each event",
    ),
    "probabilities of events": (
        lambda: losses.with_probs(functools.partial(losses.bernoulli_kl)),
        TypeError,
        r"got bernoulli_kl, .*jax.scipy.special.logit\(t\)",
    ),
    "half a draw": (lambda: gaussian.sample(FULL, jax.random.key(0), shape=2.5), ValueError, r"got 2.5. Pass integers"),
    "draws below 0": (lambda: gaussian.sample(FULL, jax.random.key(0), shape=(-1,)), ValueError, r"got \(-1,\). Pass"),
    "an axis that counts lack": (
        lambda: simplex.from_counts(BATCH, axis=5),
        ValueError,
        r"^simplex.from_counts .*got axis=5 for counts\[2, 3\]",
    ),
    "a number to check": (lambda: simplex.check(np.float32(0.5)), ValueError, r"got p\[\]. Pass one number for each"),
    "a logit to check": (lambda: jaxdiv.categorical.check(1.0), ValueError, r"got p\[\]. Pass one number for each"),
    "an axis to check": (lambda: simplex.check(np.ones(3), axis=5), ValueError, r"got axis=5 for p\[3\]"),
    "one law to check": (lambda: simplex.check(np.array([np.inf, 0])), ValueError, r"found a sum that is not one\.$"),
    "the name of a family": (
        lambda: exponential_family.kl("poisson", 1.0, 2.0),
        TypeError,
        r"as a function .*; got 'poisson'. Pass .*exponential_family.poisson",
    ),
    "a number as a family": (lambda: exponential_family.kl(3, 1.0, 2.0), TypeError, r"as a function .*; got 3. Pass"),
    "unequal counts": (
        lambda: simplex.dirichlet_smoothed(jnp.ones(2), jnp.ones(3), strength=1.0),
        ValueError,
        r"got counts\[2\] and background\[3\]",
    ),
    "a number as a string": (
        lambda: jaxdiv.categorical.renyi(BATCH[0], BATCH[0], alpha="2"),
        TypeError,
        r"got alpha of type str. Pass numbers\.",
    ),
    "nothing": (lambda: simplex.kl(None, BATCH[0]), TypeError, r"got p of type NoneType. Pass numbers\."),
    "logits as integers": (
        lambda: jaxdiv.categorical.kl(np.ones(2, int), BATCH[0]),
        TypeError,
        r"astype\(jax.numpy.float32\)\.(\n|$)",
    ),
    "a list of axes": (lambda: losses.forward_kl(BATCH, BATCH, axis=[0, 1]), TypeError, r"Pass axis=\(0, 1\)"),
    "a reduction": (
        lambda: losses.forward_kl(BATCH, BATCH, reduction="batchmean"),
        TypeError,
        r"got reduction\. .*jaxdiv.losses.mean",
    ),
    "an array of objects": (
        lambda: simplex.js(np.array([0.5, 0.5], object), np.ones(2)),
        TypeError,
        r"^simplex.js takes numbers; got p object\[2\]. Convert with p.astype\(float\)",
    ),
    "strings": (
        lambda: losses.forward_kl(np.array(["a"]), np.ones(1)),
        TypeError,
        r"^losses.forward_kl takes numbers; got logits <U1\[1\]",
    ),
    "a sparse law": (lambda: simplex.js(Sparse(), Sparse()), TypeError, r"type Sparse. Convert with p.todense\(\)"),
    "arguments of pairwise exchanged": (
        lambda: jaxdiv.pairwise(BATCH, simplex.js),
        TypeError,
        r"^jaxdiv.pairwise takes divergence as a function, .*got divergence\[2, 3\].*first",
    ),
    "the name of a divergence": (
        lambda: jaxdiv.pairwise("js", BATCH),
        TypeError,
        r"as a function, of two laws: simplex.js, .*; got divergence='js'",
    ),
    "one law for pairwise": (lambda: jaxdiv.pairwise(simplex.js, BATCH[0]), ValueError, r"ps\[None\]"),
    "a block of no law": (lambda: jaxdiv.pairwise(simplex.js, BATCH, block_size=0), ValueError, r"Pass None"),
    "numbers as points": (
        lambda: jaxdiv.estimators.knn_kl(jnp.arange(9.0), jnp.arange(9.0)),
        ValueError,
        r"got xs\[9\] and ys\[9\]. .*xs\[:, None\]",
    ),
    "a schedule as a bound": (
        lambda: jaxdiv.transforms.kl_trust_region(lambda step: 0.1),
        TypeError,
        r"got a function. optax.inject_hyperparams\(transforms.kl_trust_region\)\(max_divergence=schedule\)",
    ),
    "a law of integers": (
        lambda: gaussian.kl(gaussian.Normal(0, 1), gaussian.Normal(0.0, 1.0)),
        TypeError,
        r"got p.loc int32\[\]. Convert with jax.numpy.asarray\(p.loc\).astype",
    ),
    "one component for eight": (
        lambda: gaussian.kl(FULL, gaussian.Normal(0.0, 1.0)),
        ValueError,
        r"jax.numpy.full\(8, loc\); .* jaxdiv.gaussian.standard\(p\)",
    ),
    "a number of bins that is none": (lambda: jaxdiv.metrics.edges(BATCH, 3.5), TypeError, r"got 3.5. Pass 3"),
    "a covariance of other size": (
        lambda: gaussian.check(gaussian.MultivariateNormal(jnp.zeros(3), jnp.eye(2))),
        ValueError,
        r"got p.loc\[3\] and p.scale_tril\[2, 2\]",
    ),
    "scales of other number": (
        lambda: gaussian.check(gaussian.Normal(jnp.zeros(3), jnp.ones(2))),
        ValueError,
        r"got p.loc\[3\] and p.scale\[2\]",
    ),
    "laws of other dimension to stack": (
        lambda: gaussian.stack([gaussian.Normal(jnp.zeros(n), jnp.ones(n)) for n in (1, 2)]),
        ValueError,
        r"got laws\[0\].loc\[1\] and laws\[1\].loc\[2\]. Stack laws of one dimension",
    ),
    "laws before the divergence of a centroid": (
        lambda: jaxdiv.clustering.centroid(BATCH, simplex.js),
        TypeError,
        r"takes divergence as a constant; got divergence\[2, 3\]. Pass the arguments in the order",
    ),
    "a string of a number of clusters": (
        lambda: jaxdiv.clustering.kmeans(simplex.js, BATCH, "2", key=jax.random.key(0)),
        ValueError,
        r"got k = '2' and 2 laws. Pass an integer",
    ),
    "a string as an option of the loss": (
        lambda: jaxdiv.fused.linear_divergence(BATCH, jnp.eye(3), BATCH, losses.distillation, temperature="2"),
        TypeError,
        r"takes arrays; got temperature of type str",
    ),
    "a mask that fits in two ways": (
        lambda: losses.forward_kl(*[jnp.ones((2, 2, 4, 4))] * 2, axis=1, where=jnp.ones((2, 4, 4), bool)),
        ValueError,
        r"fit in two ways; got where\[2, 4, 4\] .*jax.numpy.expand_dims\(where, \(1,\)\)",
    ),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_an_error_names_a_remedy_that_works(case):
    call, error, remedy = REMEDIES[case]
    with pytest.raises(error, match=remedy):
        call()


def test_what_the_remedies_say_works():
    logits = jnp.ones((2, 100)), jnp.ones((2, 104))
    longer, keep = jnp.pad(logits[0], ((0, 0), (0, 4))), jnp.arange(104) < 100
    assert not np.any(losses.forward_kl(longer, logits[1], where=keep))
    assert not np.any(losses.forward_kl(BATCH, BATCH, axis=np.int64(-1)))
    assert gaussian.kl(FULL, gaussian.Normal(jnp.full(8, 0.0), jnp.full(8, 1.0))) == 0
    assert gaussian.kl(FULL, gaussian.standard(FULL)) == 0
    assert jnp.isfinite(jaxdiv.estimators.knn_kl(jnp.arange(9.0)[:, None], jnp.arange(9.0)[:, None] / 2))
    transform = optax.inject_hyperparams(jaxdiv.transforms.kl_trust_region)(max_divergence=lambda step: 0.01)
    params = jnp.zeros(2)
    bounded, _ = transform.update(
        jnp.array([3.0, 0.0]), transform.init(params), params, divergence=lambda x: losses.forward_kl(x, params)
    )
    assert losses.forward_kl(bounded, params) <= 0.01


@pytest.mark.parametrize("name", ["forward_kl", "js_of", "cross_entropy_with_labels", "standard_normal_kl"])
def test_a_mask_of_examples_has_an_axis_where_the_events_are(name):
    x, mask = jax.random.normal(jax.random.key(0), (2, 2, 4, 4)), jnp.ones((2, 4, 4), bool).at[0].set(False)
    arguments = {
        "js_of": (jnp.stack([x, -x]),),
        "cross_entropy_with_labels": (x, jnp.zeros((2, 4, 4), int)),
    }.get(name, (x, -x))
    loss = functools.partial(getattr(losses, name), *arguments, axis=2 if name == "js_of" else 1)
    with pytest.raises(ValueError, match=rf"^losses.{name} takes a mask of the rank .*fit in two ways"):
        loss(where=mask)
    # The axes of a mask are those of one view.
    value = loss(where=jnp.expand_dims(mask, 1))
    np.testing.assert_array_equal(value, jnp.where(mask, loss(), 0))
    square = functools.partial(losses.forward_kl, jnp.ones((3, 3)), jnp.ones((3, 3)))
    assert square(where=jnp.array([True, True, False])).shape == (3,)  # of classes, as for any batch


# ---------------------------------------------------------------- host-side checks


def test_check_warns_of_probabilities():
    with pytest.warns(UserWarning, match=r"^categorical.check takes logits; .*jax.numpy.log"):
        jaxdiv.categorical.check(jax.nn.softmax(jnp.arange(6.0).reshape(2, 3)))
    for logits in (jnp.arange(6.0).reshape(2, 3), jnp.zeros((2, 3)), jnp.full((2, 3), 1 / 3)):
        jaxdiv.categorical.check(logits)


@pytest.mark.parametrize(
    ("family", "bad", "fault"),
    [
        ("categorical", [np.nan, 0.0], "nan"),
        ("categorical", [np.inf, 0.0], r"\+inf"),
        ("categorical", [-np.inf, -np.inf], "no finite logit"),
        ("simplex", [np.nan, 1.0], "nan"),
        ("simplex", [-0.5, 1.5], "a negative entry"),
        ("simplex", [0.5, 0.4], "a sum that is not one"),
    ],
)
def test_check_names_the_rows(family, bad, fault):
    rows = np.full((4, 2), 0.5, np.float32)
    rows[[1, 3]] = bad
    check = getattr(jaxdiv, family).check
    with pytest.raises(ValueError, match=rf"^{family}.check found {fault} in 2 of 4 rows: 1, 3\.$"):
        check(rows)
    with pytest.raises(ValueError, match=r"in 2 of 4 rows: \(1, 0\), \(3, 0\)"):
        check(rows[:, None])
    check(rows[[0, 2]])
    check(rows[[0, 2]].T, axis=0)


def test_bernoulli_check_names_the_logits():
    with pytest.raises(ValueError, match=r"^bernoulli.check found nan in 1 of 3 rows: 2\.$"):
        jaxdiv.bernoulli.check(jnp.array([0.0, jnp.inf, jnp.nan]))


# ---------------------------------------------------------------- import


def test_an_array_for_a_law_is_a_type_error_that_names_the_forms():
    with pytest.raises(TypeError, match=r"^gaussian.kl takes a law as Normal, .*MatrixNormal; got p\[3\]"):
        jaxdiv.gaussian.kl(np.ones(3), np.ones(3))


@pytest.mark.parametrize(
    "law",
    [
        jaxdiv.gaussian.MultivariateNormal(jnp.ones((2, 3)), jnp.ones((2, 3, 3))),
        jaxdiv.gaussian.MatrixNormal(jnp.ones((2, 3, 3)), jnp.ones((2, 3, 3)), jnp.ones((2, 3, 3))),
    ],
    ids=lambda law: type(law).__name__,
)
def test_a_batch_of_laws_with_matrices_is_refused_by_every_verb(law):
    for name, signature in GAUSSIAN_VERBS.items():
        numbers = {"alpha": 0.5} if "alpha" in signature else {}
        if name in ("fisher_rao_distance", "total_variation"):
            continue
        bound = rf"functools.partial\(gaussian.{name}, alpha=...\)\)" if numbers else rf"gaussian.{name}\)"
        with pytest.raises(ValueError, match=rf"^gaussian.{name} .*got p\.loc\[2, 3.*jax\.vmap\({bound}"):
            getattr(jaxdiv.gaussian, name)(*(law,) * (1 if name == "entropy" else 2), **numbers)


def test_importing_computes_nothing_and_loads_nothing_else():
    code = """
import sys, jax, optax, numpy
from jax._src import xla_bridge
before = set(sys.modules)
import jaxdiv
assert not xla_bridge._backends, "importing jaxdiv started a backend"
loaded = {name.split(".")[0] for name in set(sys.modules) - before} - {"jaxdiv", "jax", *sys.stdlib_module_names}
assert not loaded, loaded
assert "numpy.polynomial" not in sys.modules, "costs as much as all of jaxdiv"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
