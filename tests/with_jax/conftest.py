from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """Tests run as JAX starts, without float64, whatever a test before has switched on."""
    with jax.enable_x64(False):
        yield
