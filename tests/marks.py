"""What a test takes only with `--all`."""

import pytest


def with_all(*parameters):
    """Parameters, or tuples of them, of which others like them are tested without it."""
    return [pytest.param(*(x if isinstance(x, tuple) else (x,)), marks=pytest.mark.gate) for x in parameters]
