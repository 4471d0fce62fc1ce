"""Settings for all tests: strict promotion, and eight CPU devices for the sharding tests."""

import gc
import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Traces and jaxprs are many and long-lived: to look for garbage as often as by default takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)


def pytest_addoption(parser):
    parser.addoption("--notebooks", action="store_true", help="run all notebooks, with the extras they need")
