"""`crossent.keras` beside Keras' own loss: value and gradient of logits, a process for each backend.

TensorFlow runs in the environment that `make test-keras` makes, and is left out where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ((32, 10), (4096, 1000), (1024, 32_000))
PYTHONS = {"torch": sys.executable, "jax": sys.executable, "tensorflow": str(ROOT / ".venv-keras" / "bin" / "python")}


def run(rounds: int) -> list[dict[str, Any]]:
    """Return one record a backend and shape: seconds by contender."""
    records = []
    for backend, python in PYTHONS.items():
        if not Path(python).exists():
            print(f"{backend} is left out: make test-keras makes its environment")
            continue
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = str(ROOT / "src")
        done = subprocess.run(
            [python, __file__, str(rounds)], env=environment, check=True, capture_output=True, text=True
        )
        records += json.loads(done.stdout.splitlines()[-1])
        print(records[-len(SHAPES) :], flush=True)
    return records


def _step(loss: Any, backend: str, logits: Any, labels: Any) -> Any:
    """Return a call that computes value and gradient of the mean loss, compiled where the backend compiles steps."""
    if backend == "torch":
        import torch

        leaf = torch.from_numpy(logits).requires_grad_()
        target = torch.from_numpy(labels)

        def step() -> None:
            leaf.grad = None
            loss(target, leaf).backward()

        return step
    if backend == "jax":
        import jax

        compiled = jax.jit(jax.value_and_grad(lambda z, y: loss(y, z)))
        arrays = jax.device_put(logits), jax.device_put(labels)
        return lambda: jax.block_until_ready(compiled(*arrays))
    import tensorflow as tf

    @tf.function
    def value_and_grad(z: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(y, z)
        return value, tape.gradient(value, z)

    tensors = tf.constant(logits), tf.constant(labels)
    return lambda: value_and_grad(*tensors)[1].numpy()


def _measure(rounds: int) -> list[dict[str, Any]]:
    import keras
    import numpy as np
    from timing import interleaved_medians

    import crossent.keras as cek

    backend = keras.backend.backend()
    records = []
    for num_rows, num_classes in SHAPES:
        generator = np.random.default_rng(0)
        logits = generator.standard_normal((num_rows, num_classes), dtype="float32")
        labels = generator.integers(0, num_classes, num_rows)
        calls = {
            name: _step(module.SparseCategoricalCrossentropy(from_logits=True), backend, logits, labels)
            for name, module in (("crossent", cek), ("Keras", keras.losses))
        }
        seconds = interleaved_medians(calls, rounds, calls=50 if num_rows < 1000 else 1)
        records.append({"backend": backend, "rows": num_rows, "classes": num_classes, "seconds": seconds})
    return records


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
