"""How Hypothesis searches here, and what each test leaves behind as it found it."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a loaded machine is no defect of the code.
settings.register_profile(
    "unit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def logging_put_back() -> Iterator[None]:
    """Give the process its own logging back after a test that configured ours."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
