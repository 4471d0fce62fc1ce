"""The self-check: complete, right about what it finds, and not to be fooled by XLA's fast math."""

import contextlib
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxdiv import bernoulli, categorical, gaussian, simplex
from jaxdiv._selfcheck import command, discrete

FIELDS = {
    "name": str,
    "dtype": str,
    "value_ulps": float,
    "gradient_ulps": float,
    "negatives": int,
    "nans": int,
    "rows_per_second": float,
    "ok": bool,
}
FAST_MATH = "--xla_cpu_enable_fast_math=true"
# Fast math cancels this to 0; rounding alone leaves -1e-8.
WITNESS = "import jax; print(float(jax.jit(lambda x, y: (x - (x - y)) - y)(1.0, 1e-8)))"


def run(*arguments):
    """Exit status and report of the command in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = command.main([*arguments, "--json"])
    return status, json.loads(out.getvalue())


def python(*arguments, flags="", **environment):
    """A finished Python process under XLA flags."""
    environment = {**os.environ, "XLA_FLAGS": flags, **environment}
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=root, timeout=300
    )


def pair_verbs():
    """The names, with their families, of all public functions of a pair."""
    for family in (categorical, simplex, bernoulli, gaussian):
        for name, verb in inspect.getmembers(family, inspect.isfunction):
            if verb.__module__ == family.__name__ and list(inspect.signature(verb).parameters)[:2] == ["p", "q"]:
                yield f"{family.__name__.removeprefix('jaxdiv.')}.{name}"


# One test for the whole table: it compiles every verb, which takes most of a minute.
@pytest.mark.gate
def test_every_pair_verb_has_a_row_and_keeps_its_promise_on_this_device():
    status, report = run()
    names = [row["name"] for row in report["rows"]]
    assert len(set(names)) == len(names)
    public = {name for name in pair_verbs() if "._" not in name}
    discrete_verbs = {f"{f}.{name}" for f in ("categorical", "simplex", "bernoulli") for name in discrete.DEFINITIONS}
    assert public >= discrete_verbs
    assert len(public - discrete_verbs) >= 17, "of normal laws"
    assert {name.split("(")[0] for name in names} == public
    assert [row for row in report["rows"] if not row["ok"]] == []
    assert report["ok"]
    assert status == 0


def test_the_report_describes_device_versions_and_rows():
    _, report = run("--only", "simplex.kl")
    assert list(report) == ["device", "versions", "x64", "rows", "ok"]
    device = jax.devices()[0]
    assert report["device"] == {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()}
    assert report["versions"]["jax"] == jax.__version__
    assert set(report["versions"]) == {"jax", "jaxlib", "numpy"}
    assert report["x64"] is False
    (row,) = report["rows"]
    assert list(row) == list(FIELDS)
    assert all(isinstance(x, FIELDS[key]) for key, x in row.items())
    assert row["name"] == "simplex.kl"
    assert row["dtype"] == "float32"
    assert row["ok"]


def plain_kl(p, q):
    """The sum that cancels near equality."""
    return jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1) / q), 0))


def test_a_verb_that_cancels_is_found(monkeypatch):
    monkeypatch.setattr(simplex, "kl", plain_kl)
    status, report = run("--only", "simplex.kl")
    (row,) = report["rows"]
    assert row["value_ulps"] > 1e3
    assert row["negatives"] > 0
    assert not row["ok"]
    assert not report["ok"]
    assert status == 1


def test_a_gradient_that_is_wrong_is_found(monkeypatch):
    kl = simplex.kl
    monkeypatch.setattr(simplex, "kl", lambda p, q: kl(p, jax.lax.stop_gradient(q)))
    status, report = run("--only", "simplex.kl")
    (row,) = report["rows"]
    assert row["value_ulps"] <= 8
    assert row["gradient_ulps"] > 1e3
    assert status == 1


def test_nan_is_found_and_leaves_the_json_strict(monkeypatch, capsys):
    monkeypatch.setattr(simplex, "kl", lambda p, q: jnp.sum(p * jnp.log(p / q)))
    assert command.main(["--only", "simplex.kl", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["rows"]
    assert row["value_ulps"] is None
    assert row["nans"] > 0


def test_a_broken_promise_comes_with_advice(monkeypatch, capsys):
    monkeypatch.setattr(simplex, "kl", plain_kl)
    assert command.main(["--only", "simplex.kl"]) == 1
    *_, row, advice = capsys.readouterr().out.splitlines()
    assert row.startswith("simplex.kl")
    assert row.endswith("False")
    assert "Do not rely on" in advice


def test_a_name_that_no_verb_has_is_an_error():
    with pytest.raises(SystemExit) as error:
        command.main(["--only", "no such verb"])
    assert error.value.code == 2


@pytest.mark.gate
@pytest.mark.parametrize("flags", ["", FAST_MATH], ids=["default", "fast-math"])
def test_the_exit_status_says_whether_compensated_differences_survive(flags):
    survive = float(python("-c", WITNESS, flags=flags).stdout) != 0
    assert survive or flags  # an XLA that ignores the flag may keep them
    process = python("-m", "jaxdiv", "--only", "categorical.kl", flags=flags)
    assert process.returncode == (0 if survive else 1), process.stderr
    *rows, verdict = process.stdout.splitlines()[2:]
    assert [row.split()[-1] for row in rows] == [str(survive)] * 2
    assert ("remove --xla_cpu_enable_fast_math=true from XLA_FLAGS" in verdict) == (not survive)


def test_a_gradient_of_normal_laws_that_is_wrong_is_found(monkeypatch):
    js = gaussian.js
    monkeypatch.setattr(gaussian, "js", lambda p, q: js(p, jax.lax.stop_gradient(q)))
    status, report = run("--only", "gaussian.js(Normal")
    wrong = [row["name"] for row in report["rows"] if not row["ok"]]
    assert wrong == ["gaussian.js(Normal)", "gaussian.js(NormalLogScale)"]
    assert status == 1


@pytest.mark.gate
def test_float64_is_checked_where_it_is_enabled():
    for name in ("simplex.kl", "simplex.chernoff", "gaussian.kl(MatrixNormal"):
        process = python("-m", "jaxdiv", "--only", name, "--json", JAX_ENABLE_X64="1")
        assert process.returncode == 0, process.stdout
        report = json.loads(process.stdout)
        assert report["x64"]
        assert [row["dtype"] for row in report["rows"]] == ["float32", "float64"]
