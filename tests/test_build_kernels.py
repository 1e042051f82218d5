"""What a wheel's kernels were compiled for is all that the public functions ask for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")
pytest.importorskip("sklearn")

# Prints the kernels, with the types of their arguments, that something asks for; what is kept is found, not compiled.
ASKED = """
import json, sys, warnings
from crossent.kernels.numba.compile import KeptCode
asked, load = set(), KeptCode.load_overload
def record(self, sig, context):
    asked.add(f"{self._label}{sig}")
    return load(self, sig, context)
KeptCode.load_overload = record
warnings.simplefilter("ignore")
exec(sys.stdin.read())
print(json.dumps(sorted(asked)))
"""

BUILD = """
from crossent.build_kernels import calls
for call in calls():
    call()
"""

# The examples of everything public, then losses and metrics in other dtypes, with read-only and strided arrays.
PUBLIC = """
import doctest, importlib
import numpy as np
import crossent as ce
from crossent import metrics
finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(verbose=False)
for module in MODULES:
    module = importlib.import_module(module)
    for name in module.__all__:
        value = getattr(module, name)
        if not hasattr(value, '__module__'):
            continue
        for test in finder.find(value, name, module=False, globs=dict(vars(sys.modules[value.__module__]))):
            runner.run(test, out=lambda text: None)
rng = np.random.default_rng(1)
losses = [ce.CrossEntropy(), ce.Focal(1.5), ce.Poly1(1.0), ce.GeneralizedCrossEntropy(0.7), ce.Brier()]
losses.append(ce.ZPenalty(0.1))
for dtype in (np.float16, np.float32, np.float64):
    for classes in (2, 128, 129):
        z, y = rng.standard_normal((8, classes)).astype(dtype), rng.integers(0, classes, 8)
        p = ce.softmax(z)
        for loss in [*losses, ce.EntropyPenalty(0.1)]:
            ce.value_and_grad(z, y, loss=loss, sample_weight=np.ones(8))
        for loss in (ce.CrossEntropy(), ce.Focal(1.5), ce.ZPenalty(0.1), ce.EntropyPenalty(0.1)):
            ce.value_and_grad(z, p, loss=loss, sample_weight=np.ones(8))
        ce.cross_entropy(z, y, label_smoothing=0.1)
        for loss in (ce.CrossEntropy(), ce.Focal(1.5), ce.Brier()):
            ce.value_and_grad(z, y[:, None] == np.arange(classes), link="sigmoid", loss=loss)
        ce.value_and_grad(z, p, link="sigmoid")
        ce.linear_value_and_grad(np.ones((8, 3), dtype), np.ones((classes, 3), dtype), y)
        frozen = p.astype(np.float64)
        frozen.flags.writeable = False
        for score in (metrics.log_loss, metrics.brier_score, metrics.calibration_error):
            score(y, frozen, labels=np.arange(classes), sample_weight=np.ones(16)[::2])
if "crossent.torch" in MODULES:
    import torch, crossent.torch as cet
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for rows, classes in ((8, 3), (8, 200), (8000, 3), (200, 200)):
            z = torch.randn(rows, classes).to(dtype).requires_grad_()
            x, w = torch.randn(rows, 4).to(dtype).requires_grad_(), torch.randn(classes, 4).to(dtype).requires_grad_()
            y = torch.arange(rows) % classes
            for target in (y, torch.softmax(z.detach().float(), 1).to(dtype)):
                cet.cross_entropy(z, target).backward()
                cet.cross_entropy(z, target, loss=ce.EntropyPenalty(0.1)).backward()
                cet.linear_cross_entropy(x, w, target).backward()
            cet.binary_cross_entropy_with_logits(z, (z > 0).to(dtype)).backward()
            cet.linear_statistics(x, w, y).lse.sum().backward()
            cet.distillation_loss(z, z.detach()).backward()
"""


def asked(code: str) -> set[str]:
    """The kernels that a fresh process asks for."""
    environment = {name: value for name, value in os.environ.items() if name != "CROSSENT_DISABLE_NUMBA"}
    done = subprocess.run([sys.executable, "-c", ASKED], input=code, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_wheel_has_every_kernel_that_public_functions_ask_for() -> None:
    modules = ["crossent", "crossent.information", "crossent.metrics", "crossent.calibration", "crossent.sklearn"]
    modules += ["crossent.torch"] if importlib.util.find_spec("torch") else []
    wanted = asked(f"MODULES = {modules}\n{PUBLIC}")
    assert len(wanted) > 40
    assert wanted <= asked(BUILD)
