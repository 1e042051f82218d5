"""`crossent.load_model`: the probabilities of `crossent predict`, on frames of any library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from test_cli import run, table

import crossent as ce


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    table(when=[None, 1.5] * 30).write_csv(folder / "t.csv")
    assert run("fit", str(folder / "t.csv"), "--target", "kind", "-o", str(folder / "out")).exit_code == 0
    assert run("predict", str(folder / "out/model.safetensors"), str(folder / "t.csv"), "-o", str(folder / "p.csv"))
    return folder


@pytest.mark.parametrize("make", [pl.read_csv, pd.read_csv, lambda path: pa.Table.from_pandas(pd.read_csv(path))])
def test_every_frame_gets_the_probabilities_of_the_command(made: Path, make) -> None:
    model = ce.load_model(made / "out/model.safetensors")
    frame, written = make(made / "t.csv"), pl.read_csv(made / "p.csv")
    expected = written.select(f"probability_{name}" for name in model.classes_).to_numpy()
    np.testing.assert_allclose(model.predict_proba(frame), expected, rtol=1e-12)
    assert model.predict(frame).tolist() == written["prediction"].to_list()
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert repr(model).startswith("<TableModel of 'kind': 3 classes from 3 columns, trained on 45 rows of ")


def test_what_is_no_frame_lacks_a_column_or_has_new_categories_is_told(made: Path) -> None:
    model = ce.load_model(made / "out/model.safetensors")
    with pytest.raises(ValueError, match=r"a model predicts on a data frame, .* not .*shape"):
        model.predict(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="there is no column 'colour' in 'the data frame'"):
        model.predict(table(when=[1.0] * 60).drop("colour"))
    with pytest.warns(UserWarning, match="2 of 2 rows hold a category that was not there in training"):
        model.predict(table(2, when=[1.0, 2.0]).with_columns(colour=pl.lit("mauve")))
    with pytest.raises(ValueError, match="there is no model file 'nowhere'"):
        ce.load_model("nowhere")


def test_crossent_alone_loads_no_table_library() -> None:
    code = "import crossent, sys; assert not {'polars', 'sklearn'} & {*sys.modules}; crossent.load_model"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'load_models'"):
        ce.load_models  # noqa: B018
