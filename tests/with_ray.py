"""The library inside Ray Data, on real Parquet; what it needs is in the `ray` extra."""

import os
import signal
import sys

import blocks
import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import ray

from jaxdiv import metrics, simplex

# Ray's own; a warning of ours would be one of the workers', which do not make errors of them.
pytestmark = pytest.mark.filterwarnings("ignore")
SHARDS, ROWS, K = 8, 100, 5


@pytest.fixture(scope="module", autouse=True)
def cluster():
    variables = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "JAX_PLATFORMS": "cpu"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()


@pytest.fixture
def histograms(tmp_path):
    """Shards of histograms, among them a row with nan, one that is negative and one of zeros; and all rows."""
    rows = np.random.default_rng(0).dirichlet(np.ones(K), SHARDS * ROWS).astype(np.float32)
    rows[3], rows[105, 0], rows[210] = np.nan, -0.5, 0
    for i, part in enumerate(np.split(rows, SHARDS)):
        table = {"row": np.arange(i * ROWS, (i + 1) * ROWS)} | {str(j): part[:, j] for j in range(K)}
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / f"{i}.parquet")
    return tmp_path, rows


def score(batch, reference, marker):
    """The divergence of each row from a reference; the first worker dies."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    laws = np.stack([batch[str(j)] for j in range(K)], -1)
    return {"row": batch["row"], "js": np.asarray(jax.vmap(simplex.js, (0, None))(laws, reference))}


def test_a_killed_worker_costs_no_row_and_a_bad_row_is_nan_alone(histograms, tmp_path):
    folder, rows = histograms
    reference = np.full(K, 1 / K, np.float32)
    marker = tmp_path / "killed"
    data = ray.data.read_parquet(str(folder), file_extensions=["parquet"])
    found = data.map_batches(score, batch_size=ROWS, fn_kwargs={"reference": reference, "marker": marker}).to_pandas()
    assert marker.exists()
    found = found.sort_values("row")
    np.testing.assert_array_equal(found["row"], np.arange(SHARDS * ROWS))
    truth = jax.vmap(simplex.js, (0, None))(rows, reference)
    np.testing.assert_allclose(found["js"], truth, 1e-6)
    assert list(np.flatnonzero(np.isnan(found["js"]))) == [3, 105]


def fail(batch):
    """What a wrong shape does in a worker."""
    return {"js": simplex.js(np.stack([batch["0"], batch["1"]]), np.ones(2) / 2)}


def test_an_error_in_a_worker_says_what_was_wrong(histograms):
    folder, _ = histograms
    with pytest.raises(Exception, match=r"simplex.js compares one pair of vectors of equal length; got p\[2, "):
        ray.data.read_parquet(str(folder), file_extensions=["parquet"]).map_batches(fail, batch_size=ROWS).take_all()


def test_the_example_of_the_guide_finds_drift(tmp_path, capsys):
    for i in range(3):
        scores = np.random.default_rng(i).beta(2, 2, size=500)
        pyarrow.parquet.write_table(pyarrow.table({"score": scores}), tmp_path / f"{i}.parquet")
    (block,) = blocks.apart(blocks.ROOT / "docs/pages/guides/devices.md")
    assert "s3://bucket/scores" in block
    names = {}
    exec(compile(block.replace("s3://bucket/scores", str(tmp_path)), "devices.md", "exec"), names)
    assert names["found"].p_value < 1e-6
    assert metrics.compute(names["current"]).weight.sum() == 1500
    assert capsys.readouterr().out.startswith("JS 0.0")
