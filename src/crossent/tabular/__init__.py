"""Tables in, models and predictions out: what the command line does, without printing."""

try:
    import polars as _polars  # noqa: F401
    import safetensors as _safetensors  # noqa: F401
    import sklearn as _sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "crossent.tabular needs polars, safetensors and scikit-learn: pip install 'crossent[tabular]'", name=error.name
    ) from error

from .conversions import MISSING_WORDS, ColumnOptions
from .errors import InputError
from .fitting import FitOptions, TrainedModel
from .loading import TableModel, load_model
from .model import Model, read_model
from .predicting import ParquetPredictions, held_out_predictions, prediction_bytes, prediction_table
from .predictions import Predictions, join_by, read_predictions
from .preprocessing import Preprocessing, UnseenCategories
from .reading import BUILT_IN, default_target, read_table, read_tables, source_name, table_files
from .recalibrating import Recalibrated, recalibrate, replace_predictions
from .streaming import fit_parquet, should_stream
from .training import fit_table

__all__ = [
    "BUILT_IN",
    "MISSING_WORDS",
    "ColumnOptions",
    "FitOptions",
    "InputError",
    "Model",
    "ParquetPredictions",
    "Predictions",
    "Preprocessing",
    "Recalibrated",
    "TableModel",
    "TrainedModel",
    "UnseenCategories",
    "default_target",
    "fit_parquet",
    "fit_table",
    "held_out_predictions",
    "join_by",
    "load_model",
    "prediction_bytes",
    "prediction_table",
    "read_model",
    "read_predictions",
    "read_table",
    "read_tables",
    "recalibrate",
    "replace_predictions",
    "should_stream",
    "source_name",
    "table_files",
]
