"""Write docs/common-mistakes.md from the texts of the doctor's rules and checks, and what their demonstrations print.

Usage: python docs/make_common_mistakes.py
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

from crossent.doctor.explained import Explained
from crossent.doctor.pages import markdown
from crossent.doctor.rules import RULES
from crossent.doctor.runtime import CHECKS

PAGE = Path(__file__).with_name("common-mistakes.md")

INTRODUCTION = """\
# Common mistakes

A softmax in front of a cross-entropy that applies softmax itself raises no error. Training runs, the loss falls, and
the result is merely poor. This page lists such mistakes, shows by running code what each costs, and says what to write
instead. `crossent lint` finds them without running or importing your code, in Python files and in notebooks:

```sh
pip install 'crossent[lint]'
crossent lint src notebooks        # status 1 if there is an error or a warning
crossent lint src --fix            # mend what keeps its meaning; --unsafe-fixes: also where numbers change
crossent rule XE101                # explain a rule
```

```text
train.py:27:16: XE101 softmax (line 7) goes into CrossEntropyLoss, which takes logits and applies softmax itself
```

## What it can see, and what it cannot

It follows values through names, functions, classes whose `forward` ends in a softmax, `nn.Sequential`, Keras models,
flax modules, `self.loss`, aliases of imports, and from one file of a run to another. Where two branches disagree, or a
value comes from a parameter, a configuration or a library, it knows nothing and says nothing. A function at the top of
a file is followed with what the files of the run call it with, a method only with what its own file calls it with. It
does not import your code, so it cannot see what is decided when that runs. Nothing found does not mean nothing wrong.

An *error* is a wrong number or a call that fails, a *warning* is most probably not what was meant, and *advice* is
right and can be better. Advice alone leaves the status at 0.

- `# crossent: ignore[XE101]` on the first or last line of an expression silences a rule there, `# crossent: ignore`
  every rule.
- `--select` and `--ignore` take codes or beginnings of codes, `--exclude` names or patterns of files.
- `--format json`, `sarif` and `github` are for machines; `--diff` shows what the fixes would change.
- In `pyproject.toml`:

```toml
[tool.crossent.lint]
ignore = ["XE102"]
exclude = ["legacy"]
per-file-ignores = { "tests/*.py" = ["XE2"] }
```

- With [pre-commit](https://pre-commit.com) use the hook `crossent-lint` of this repository.

Files are parsed by Python's own `ast`, whose positions are exact to the byte. A fix puts one text in the place of
another and leaves the rest of the file as it is, so no second parser (such as libcst, which is slower) is needed.
A file that names nothing that a rule looks for is read and not parsed.

## How often is it right?

The tests hold SNIPPETS labelled snippets. Half of them are right code that looks suspicious: attention, softmax for a
metric, distillation, policy gradients, Gumbel-softmax, Learning without Forgetting. On them every finding is right and
every mistake is found. They were written beside the rules, so that proves that the rules do what they say, and no more.
Therefore the sources of installed packages were linted as well, and every finding was looked at:

"""

PACKAGES = """\
- *PyTorch 2.13* (2,328 files, 11 findings): softplus by hand, which overflows, in `distributions`, in `_decomp` and 5
  times in tests; the logarithm of a sigmoid, 4 times in tests.
- *transformers 5.23* (2,860 files, 18 findings): the logarithm of a sigmoid plus 1e-8, 10 times in the matching costs
  of DETR and its relatives; the logarithms of a sigmoid and of its complement in the loss of LW-DETR; softmax by hand,
  4 times in VideoPrism and 2 times in the pipeline for zero-shot classification.
- *scikit-learn 1.9* (673 files, 4 findings): softplus by hand in the Gaussian process classifier and 2 times in tests;
  softmax by hand in a test.
- *Keras 3.15* (904 files, 9 findings): in a test, a model that ends in a sigmoid and a loss with `from_logits=True`;
  softplus and log-sum-exp by hand, 4 times in tests; the logarithm of a clamped softmax, 4 times in tests.
- *statsmodels 0.15* (913 files, 8 findings): the logarithm of a sigmoid in `Logit`, log-sum-exp and softplus by hand in
  two other models; in tests, the logarithms of a sigmoid and of its complement, and softmax by hand 2 times.
- *SciPy 1.17* (989 files, 6 findings): log-sum-exp by hand, 3 times in tests; softplus by hand, 3 times in
  distributions.
- *optax 0.2.8, JAX 0.10, SymPy, NetworkX, Dask, ONNX Runtime* (3,528 files): nothing.

All of these are true. Before that, 11 findings in PyTorch, Numba and SciPy were false: formulas that `where`, a mask or
a condition guards, and exponents from which a maximum was taken off under the name `max_`. The rules no longer report
these.
"""

RUN_TIME = """\
# What the numbers of a batch show

`crossent.doctor.check` looks at outputs and targets while a program runs: arrays of NumPy, PyTorch on any device, JAX
or TensorFlow, or lists. It needs no more than crossent itself; the two checks that fit something use SciPy and
scikit-learn, and say so where these are missing.

```pycon
>>> import numpy as np
>>> import crossent as ce
>>> from crossent.doctor import check
>>> labels = np.arange(60) % 3
>>> outputs = ce.softmax(np.random.default_rng(0).normal(size=(60, 3)))
>>> print(check(outputs, labels))
XE802 error: every row lies in [0, 1] and sums to 1: softmax was applied already, and this loss
  cannot fall below 0.551 for 3 classes. Give the loss what comes before the softmax, or take the
  logarithm and nll_loss.
Found 1 error. Looked at 60 rows of float64 logits of shape (60, 3), softmax link (target has one
  number a row, of int64), CrossEntropy().
Ran XE801, XE802, XE803, ...
Silence is not approval: only what is listed here was looked at, in these rows.

```

What it returns is a sequence of symptoms, worst first, and is false if there is none. A symptom has a code, a severity,
a message, its numbers and an advice:

```pycon
>>> found = check(outputs, labels)
>>> found[0].code, found[0].severity, round(found[0].numbers["floor"], 3)
('XE802', 'error', 0.551)

```

It reads the numbers and changes none. Of a large batch it looks at 4096 rows and 2 million logits at most, drawn with a
fixed seed, at every label, and at the first rows that hold NaN or +inf. What chance could do must be 5 standard errors
away, so a right batch is left in peace: an untrained network, a batch of one row, a good model. Some checks need more
rows than a small batch has. The diagnosis lists what ran and what was left out, with the reason.

"""


TRAINING = """
# While a model trains

`crossent.doctor.watch` stands between a PyTorch training loop and its losses. The loop stays as it is:

<!-- requires: torch -->
```python
import io

import torch
import torch.nn.functional as F

from crossent import doctor

torch.manual_seed(0)
x, y = torch.randn(60, 20), torch.arange(60) % 10
model = torch.nn.Sequential(torch.nn.Linear(20, 10), torch.nn.Softmax(dim=1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with doctor.watch(model, file=io.StringIO()) as diary:  # without `file` it prints to stderr, each finding once
    for step in range(20):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(diary.entries[0].symptom.message)
print(diary.seen[0].looks, "of", diary.seen[0].calls)
```

```text
softmax goes into cross_entropy, which takes logits and applies softmax itself
3 of 20
```

- *What is watched.* `cross_entropy`, `nll_loss`, `binary_cross_entropy`, `binary_cross_entropy_with_logits` and
  `kl_div` of `torch.nn.functional`, the modules of `torch.nn` that call them, and the losses of `crossent.torch`, in
  every place of the program that calls one. With `loss=` only that loss; one that is none of these is taken to be
  called as `loss(logits, target)`. A function that no module holds under a name is called as `diary.loss(...)`.
- *What is looked at.* The first 3 calls in each place and then every 500th (`first`, `every`), and a call that fails.
  Autograd's graph tells a softmax or sigmoid before the loss, also behind views, casts and dropout, and where the
  numbers do not show it. The checks above look at the batch, without the temperature.
- *NaN.* On a CPU every loss is tested, on a GPU only in the looks, since a test makes the program wait. The first
  number that is not finite is traced: to a parameter, to the input, or to a module, by running a copy of the model once
  more on the same input (not in a process group of `torch.distributed`).
- *What it changes.* No number: parameters, losses and random states are the same to the bit with and without it. It
  works with autocast, gradient accumulation, checkpointed blocks and compiled models; inside a compiled function it
  sees nothing. Wrappers and hooks go when the block ends.
- *What it costs.* About 35 µs a call and 2 ms a look on one busy core: 0.1 % of the 102 ms step of a CNN with three
  layers (64 images of 32 × 32), 2.4 % of the 1.4 ms step of a network of 784-256-10 with 128 rows, the smallest tried.

A whole program is watched without a change of a line:

```sh
python -m crossent.doctor train.py --epochs 3      # or: -m package.train
```

It keeps its arguments, output and status. Findings come on stderr, and at the end what was looked at. Keras' `fit` is
watched as well. In a program of your own, give `fit` the callback:

<!-- requires: keras -->
```python
import io

import keras
import numpy as np

from crossent import doctor

x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
callback = doctor.KerasCallback(x, y, file=io.StringIO())
model.fit(x, y, verbose=0, callbacks=[callback])
print(callback.diary.entries[0].symptom.message)
```

```text
the model ends in softmax, and SparseCategoricalCrossentropy is told from_logits=True
```

It compares the last layer with the loss before the first epoch, and looks at the outputs of the rows that it is given
at the end of an epoch. The last layer of a model that is a subclass with a `call` of its own is not seen.
"""


def printed(rule: Explained) -> str:
    """Run a demonstration and return what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(rule.demonstration, {"__name__": "__main__"})
    return output.getvalue()


def contents() -> str:
    """Return the table of all rules."""
    rows = [f"{row(rule)} {rule.fix} |" for rule in RULES]
    return "\n".join(["| code | severity | what is found | fix |", "|---|---|---|---|", *rows]) + "\n"


def contents_at_run_time() -> str:
    """Return the table of all checks."""
    return "\n".join(["| code | severity | what is found |", "|---|---|---|", *map(row, CHECKS)]) + "\n"


def row(one: Explained) -> str:
    """Return the first three cells of a table."""
    return f"| [{one.code}](#{anchor(one)}) | {one.severity} | {one.summary} |"


def anchor(rule: Explained) -> str:
    """Return the anchor of a heading as Markdown makes it."""
    return f"{rule.code}-{rule.name}".lower()


def page(outputs: dict[str, str], num_snippets: int) -> str:
    """Return the whole page."""
    sections = "\n".join(markdown(rule, outputs[rule.code]) for rule in RULES)
    introduction = INTRODUCTION.replace("SNIPPETS", str(num_snippets))
    checks = "\n".join(markdown(one, outputs[one.code]) for one in CHECKS)
    return (
        f"{introduction}{PACKAGES}\n## All rules\n\n{contents()}\n{sections}\n"
        f"{RUN_TIME}## All checks\n\n{contents_at_run_time()}\n{checks}{TRAINING}"
    )


def num_snippets() -> int:
    """Return how many snippets the corpus of the tests has."""
    folder = Path(__file__).parents[1] / "tests" / "doctor" / "corpus"
    return sum(path.read_text("utf-8").count("### ") for path in folder.glob("*.txt"))


if __name__ == "__main__":
    PAGE.write_text(page({one.code: printed(one) for one in (*RULES, *CHECKS)}, num_snippets()), "utf-8")
