"""Rare classes: weights and priors of a training set, probabilities for another prior, decisions that count costs.

Weights, resampling and logit adjustment all multiply the odds of the classes by known factors. `correct_prior` takes
such factors back, so that a model which was trained with them ends in honest probabilities; `decide` puts the costs of
mistakes where they belong, after the model. Estimators that do both are in `crossent.sklearn`.
"""

from .costs import DecisionValue, Thresholds, decide, decision_value, expected_cost, realised_cost, thresholds
from .priors import correct_prior, estimate_prior
from .weights import class_prior, class_weights

__all__ = [
    "DecisionValue",
    "Thresholds",
    "class_prior",
    "class_weights",
    "correct_prior",
    "decide",
    "decision_value",
    "estimate_prior",
    "expected_cost",
    "realised_cost",
    "thresholds",
]
