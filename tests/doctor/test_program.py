"""``python -m crossent.doctor train.py``: the program runs as it would alone, and its losses are watched."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")

PROGRAM = """\
import sys
import helper
from torch.nn.functional import cross_entropy
import torch

assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
print(sys.argv[1:], helper.NAME)
torch.manual_seed(0)
z, y = torch.randn(8, 3), torch.arange(8) % 3
print(cross_entropy(z.requires_grad_().softmax(1), y).item())
import crossent.torch as ct
ct.cross_entropy(z.sigmoid(), y)
sys.exit(int(sys.argv[1]))
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=dict(os.environ), timeout=300)


@needs_torch
@pytest.mark.parametrize("is_module", [False, True])
def test_a_program_is_watched(tmp_path: Path, is_module: bool) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text("NAME = 'beside it'\n")
    program = ("-m", "train") if is_module else ("train.py",)
    result = run("crossent.doctor", *program, "3", "-h", folder=tmp_path)
    alone = run(*(program[1:] if is_module else ("runpy", "train")), "3", "-h", folder=tmp_path)
    assert (result.returncode, result.stdout) == (alone.returncode, alone.stdout) == (3, alone.stdout), result.stderr
    assert alone.stdout.startswith("['3', '-h'] beside it\n1.")
    first, second, last = result.stderr.splitlines()
    assert first.startswith("crossent.doctor: train.py:10: XE101 error: softmax goes into cross_entropy, which takes")
    assert second.startswith("crossent.doctor: train.py:12: XE104 error: sigmoid goes into cross_entropy, which is")
    assert last.startswith("crossent.doctor: 2 findings; looked at 1 of 1 call of cross_entropy (train.py:10), 1 of 1")


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("print('fine')", 0, "no loss that the doctor knows was called"),
        ("raise SystemExit('a sentence')", 1, "a sentence"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_the_status_is_kept(tmp_path: Path, text: str, status: int, words: str) -> None:
    (tmp_path / "train.py").write_text(text)
    result = run("crossent.doctor", "train.py", folder=tmp_path)
    assert result.returncode == status
    assert words in result.stderr
    assert "crossent.doctor: nothing found" in result.stderr


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    result = run("crossent.doctor", "nowhere.py", folder=tmp_path)
    assert (result.returncode, result.stderr) == (2, "crossent.doctor: there is no program nowhere.py\n")
    for arguments in ((), ("-m",)):
        result = run("crossent.doctor", *arguments, folder=tmp_path)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("usage: python -m crossent.doctor (PROGRAM.py | -m MODULE)")
    assert run("crossent.doctor", "--help", folder=tmp_path).returncode == 0


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras 3 is not installed: pip install keras")
def test_fit_is_watched(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import keras, numpy as np\n"
        "model = keras.Sequential([keras.layers.Dense(3, activation='softmax')], name='net')\n"
        "model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))\n"
        "model.fit(np.ones((32, 4)), np.arange(32) % 3, verbose=0)\n"
    )
    result = run("crossent.doctor", "train.py", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("crossent.doctor:")]
    assert "model net: XE501 error: the model ends in softmax" in lines[0]
    assert "1 of 1 epoch of SparseCategoricalCrossentropy (model net)" in lines[-1]


def test_importing_the_doctor_needs_neither_torch_nor_keras_nor_libcst(tmp_path: Path) -> None:
    code = (
        "import sys, crossent.doctor\n"
        "assert not {'torch', 'keras', 'libcst', 'jax', 'tensorflow'} & set(sys.modules)\n"
        "crossent.doctor.watch()\n"
    )
    (tmp_path / "check.py").write_text(code)
    result = subprocess.run([sys.executable, "check.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_the_package_is_the_command(tmp_path: Path) -> None:
    result = run("crossent", "rule", "XE101", folder=tmp_path)
    assert (result.returncode, result.stdout.startswith("XE101 softmax-before-cross-entropy")) == (0, True)
