"""Softmax regression as a scikit-learn classifier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.utils.validation import _check_feature_names, _check_n_features, check_is_fitted

from crossent.errors import refuse
from crossent.estimator import all_or_nothing
from crossent.numpy.elementwise import sigmoid, softmax
from crossent.regression.blas import single_threaded_blas
from crossent.regression.checkpoint import exclusive
from crossent.regression.targets import weighted_rows

from .fitting import Fitting, checked_weight
from .inference import CoefficientSummary, summarize_coefficients
from .inputs import refuse_source

__all__ = ["SoftmaxRegression"]


class SoftmaxRegression(Fitting):
    """Softmax regression that says how far from the optimum it can be.

    Of two classes it is scikit-learn's ``LogisticRegression`` at twice its C: ``SoftmaxRegression(C)`` has a row of
    weights for each class, and predicts what ``LogisticRegression(2 * C)`` does with one row. At the same C,
    ``SoftmaxRegression(C, link="sigmoid")`` is ``LogisticRegression(C)``. Of more classes, both are the same at one C.

    Minimises scikit-learn's objective

        f(W, b) = C · Σ_i s_i ℓ(W x_i + b, y_i) + ½ ‖W‖²

    (s: sample weights times class weights; the intercept b is not penalised; ℓ in nats) by truncated Newton steps, and
    stops when the *duality gap* proves ``(f - f*) / f ≤ tol``.

    Parameters
    ----------
    C : float, default 1.0
        Weight of the losses beside the penalty, positive. ``math.inf`` drops the penalty (and with it the certificate;
        the data may then have no optimum).
    link : {"softmax", "sigmoid"}, default "softmax"
        "softmax": exclusive classes. "sigmoid": one binary cross-entropy per label, for two classes or for label sets;
        for more exclusive classes one against the rest, whose probabilities ``σ(z_k)`` are divided by their sum.
    loss : loss, optional
        A loss of the family, such as ``crossent.Focal(2.0)``; None is cross-entropy. Other losses than cross-entropy
        have no certificate, and those that are not convex (focal, generalised cross-entropy, Brier) can have more than
        one minimum.
    label_smoothing : float, default 0.0
        ε: the target becomes ``(1-ε) t + ε/K`` (sigmoid: ``(1-ε) t + ε/2``).
    fit_intercept : bool, default True
        Whether to fit b.
    class_weight : dict, {"balanced", "inverse", "sqrt", "effective"} or None
        Weights of the classes, ``{class: weight}``, or a scheme of `crossent.imbalance.class_weights` that reads them
        off the training labels; "balanced" is scikit-learn's rule. For label sets, the weights of 0 and of 1.
    tol : float, default 1e-4
        The relative duality gap ``(f - D) / f`` at which to stop. Where no certificate exists (another loss, or
        ``C=inf``): the norm of the gradient relative to its norm at ``W = 0, b = 0``.
    max_iter : int, default 1000
        The most iterations.
    dtype : {None, "float32", "float64"}
        What the matrix products run in. None keeps float32 or float64 data as they are and takes float64 otherwise.
        Sums over rows and the parameters are float64 in any case, and products of float32 data change to float64,
        block by block, when their rounding is what stands in the way.
    warm_start : bool, default False
        Start from the last fit's coefficients where their shapes agree.
    callback : callable, optional
        Called with every entry of the history as it comes; a true result stops the fit.
    verbose : int, default 0
        1 prints one line per iteration.
    checkpoint : str or path, optional
        A file that the state of a fit is written to every `checkpoint_interval` seconds, at the end of an iteration,
        and where the fit goes on from if it finds it: a fit that was killed ends with the coefficients it would have
        had. (A fit with a checkpoint takes other steps than one without, to the same tolerance.) The file appears whole
        or not at all; it holds numbers and JSON (safetensors), no code. Other data, weights or parameters than `tol`,
        `max_iter`, `callback` and `verbose` are refused. After a fit that converged it stays, marked as finished: the
        same fit then only evaluates once, another one replaces it. It is of one fit at a time: a second one that begins
        before the first has ended is refused (not on Windows).
    checkpoint_interval : float, default 60.0
        Seconds between two checkpoints; a fit that is shorter writes none. 0 writes one after each iteration.

    Attributes
    ----------
    classes_ : ndarray (K,)
        The classes; for label sets and for distributions as targets, 0 to K-1.
    coef_ : ndarray (K, D)
        W; one row for two classes with the sigmoid link.
    intercept_ : ndarray (K,)
        b. A class (or label value) with no weight at all in the data is predicted with probability 0, which is where
        the infimum of f lies: its entry is -inf (a label that is always present: +inf).
    n_features_in_, feature_names_in_
        As scikit-learn sets them.
    n_iter_ : int
        Iterations.
    objective_ : float
        f at the returned coefficients, in nats (for ``C=inf`` the sum of the weighted losses).
    duality_gap_ : float
        ``(f - D) / f`` with D ≤ f* the best dual bound found: the relative excess of f at `coef_` and `intercept_`, as
        they are stored, over the optimum is at most this, up to float64's rounding. NaN without a certificate.
    certificate_ : str
        What `duality_gap_` proves, or why there is no proof.
    history_ : list of dict
        One entry per iteration: iteration, objective, gradient_norm, duality_gap (None without a certificate),
        evaluations (of f with its gradient, so far), hessian_products (so far), seconds (so far).

    Notes
    -----
    For two classes `decision_function` returns one column, the difference of the two logits, as scikit-learn's
    classifiers do; `logits` always has a column per class. The factor 2 of two classes comes from the penalty: the
    difference of two rows of W costs half of what a single row would.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from crossent.sklearn import SoftmaxRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SoftmaxRegression(C=0.01).fit(X, y)
    >>> bool(model.duality_gap_ <= 1e-4)
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = self.link == "sigmoid"
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxRegression:
        """Fit to labels, distributions or label sets.

        Parameters
        ----------
        X : array-like, data frame, sparse matrix, ParquetRows or Dask collection (N, D)
            Finite numbers. Sparse rows are made dense a block at a time; memory maps of float32 or float64 in C order
            and Parquet files are read window by window, and nothing of their size is made (other dtypes and orders are
            converted whole). Rows of a Dask array or data frame stay on its workers.
        y : array-like
            Labels (N,). With the softmax link also distributions, a *floating* (N, K) array whose rows sum to 1; with
            the sigmoid link label sets, (N, K) of 0 and 1 or of probabilities.
        sample_weight : array-like (N,), optional
            Non-negative weights. A weight of k counts a row k times; 0 leaves it out.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        ValueError
            If a parameter, the data or the checkpoint cannot be used, with the reason; if a partition of a Dask
            collection holds other rows when it is computed again. After this or any other error the estimator is what
            it was before: unfitted, or the last fit whole.

        Warns
        -----
        ConvergenceWarning
            If `tol` was not reached, with the gap reached and the argument to change, or if the fit was interrupted.
        """
        with all_or_nothing(self):
            with single_threaded_blas():
                problem = self._prepare(X, y, sample_weight)
            with problem.objective.single_threaded_blas(), exclusive(self.checkpoint):
                result, solver = self._solve(problem, self._start(problem), self._open_checkpoint(problem))
        self._explain(result, solver)
        return self

    def sweep(self, X: Any, y: Any, Cs: Iterable[float], sample_weight: Any = None) -> Iterator[SoftmaxRegression]:
        """Yield a fitted clone for each C, each fitted from the coefficients of the one before.

        The data are checked, centred and converted once. Best from small C to large.

        Parameters
        ----------
        X, y, sample_weight
            As `fit` takes them.
        Cs : iterable of float

        Yields
        ------
        SoftmaxRegression
            With the parameters of this one but C. This one is not fitted. KeyboardInterrupt during a fit makes it the
            last.

        Raises
        ------
        ValueError
            As `fit`, and if `checkpoint` is set: it would be of one fit of many.
        """
        if self.checkpoint is not None:
            raise ValueError(refuse("a sweep keeps no checkpoint", f"checkpoint={self.checkpoint!r}", "pass None"))
        owner = clone(self)
        problem = owner._prepare(X, y, sample_weight)
        names = ("n_features_in_", "feature_names_in_")
        known = {name: getattr(owner, name) for name in names if hasattr(owner, name)}
        for model, result in self._sweep(problem, Cs, owner._start(problem), known):
            yield model
            if result.status == "interrupted":
                return

    def summary(self, X: Any, y: Any, sample_weight: Any = None, *, confidence: float = 0.95) -> CoefficientSummary:
        """Return coefficients with standard errors, z, p and Wald intervals; a notebook shows them as a table.

        The covariance is the inverse of the objective's Hessian at the fit: of maximum likelihood for ``C=inf``, else
        of Laplace's approximation with the penalty as a normal prior. Softmax coefficients are contrasts with the
        first class. Only for cross-entropy, and up to 4096 parameters.

        Parameters
        ----------
        X, y, sample_weight
            What the model was fitted to.
        confidence : float, default 0.95
            Of the intervals.

        Returns
        -------
        CoefficientSummary
            With ``to_frame()``, a pandas DataFrame of one line for each contrast and column; ``print`` shows text.

        Raises
        ------
        ValueError
            If the loss is not cross-entropy, there are too many parameters, the Hessian cannot be inverted, or X has
            other features than those of the fit.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True)
        >>> X = (X - X.mean(0)) / X.std(0)
        >>> summary = SoftmaxRegression().fit(X[:, :2], y).summary(X[:, :2], y)
        >>> print(summary.contrasts[0], summary.standard_errors.shape)
        1 against 0 (2, 3)
        """
        check_is_fitted(self)
        refuse_source(X, "summary", "X[:] reads all rows")
        loss = self._check_parameters()
        if not loss.is_cross_entropy:
            raise ValueError(refuse("standard errors exist for plain cross-entropy", repr(loss)))
        given = X
        X, y = clone(self).check_data(X, y)  # a fit's checks would overwrite this one's features
        _check_n_features(self, X, reset=False)
        if hasattr(given, "columns"):
            _check_feature_names(self, given, reset=False)
        weight = checked_weight(sample_weight, X)
        target = self._encode(y, weight, loss)
        weight = weighted_rows(target, self.class_weight, weight)
        if not np.isfinite(self.intercept_).all():
            raise ValueError(refuse("standard errors need every class to have weight", "a class without any"))
        X = (X.toarray() if issparse(X) else X).astype(np.float64)
        intercept = self.intercept_.astype(np.float64)
        logits = X @ self.coef_.T.astype(np.float64) + intercept
        tau = target.dense(slice(None))[1]
        factor = weight * (1.0 if math.isinf(self.C) else float(self.C))
        coefficients = self.coef_.astype(np.float64)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(X.shape[1])])
        return summarize_coefficients(
            X,
            factor * tau if tau.ndim == 1 else factor[:, None] * tau,
            softmax(logits) if self.link == "softmax" else sigmoid(logits),
            np.column_stack([coefficients, intercept]) if self.fit_intercept else coefficients,
            penalty=0.0 if math.isinf(self.C) else 1.0,
            fit_intercept=bool(self.fit_intercept),
            target=target,
            names=[str(name) for name in names],
            confidence=confidence,
        )
