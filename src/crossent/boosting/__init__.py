"""The losses as objectives and metrics of XGBoost, LightGBM and CatBoost, and a classifier around each.

None of the three libraries is imported here.
"""

from .metric import Metric
from .objective import Objective

__all__ = ["Metric", "Objective"]
