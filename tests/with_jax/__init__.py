"""Tests of `crossent.jax`; all are skipped where JAX is not installed."""

import pytest

pytest.importorskip("jax", reason="crossent.jax is tested where JAX is installed")
