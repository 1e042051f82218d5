"""The losses as objectives and metrics of XGBoost, LightGBM and CatBoost, and a classifier around each.

None of the three libraries is imported before a model of it is there.
"""

from .classifier import BoostedClassifier
from .metric import Metric
from .objective import Objective

__all__ = ["BoostedClassifier", "Metric", "Objective"]
