"""From predictions to a report: `summarize` computes one plain dict, the renderers only show it.

From Python, :func:`evaluate` and :func:`from_estimator` return it as an object.
"""

try:
    import jinja2 as _jinja2  # noqa: F401
    import matplotlib as _matplotlib  # noqa: F401
    import rich as _rich  # noqa: F401

    from .. import tabular as _tabular  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "crossent.report needs matplotlib, jinja2, rich and what crossent.tabular needs: "
        "pip install 'crossent[report]'",
        name=error.name,
    ) from error

from .compare import compare_predictions
from .document import Report, evaluate, from_estimator
from .files import FIT_FILES, JSON_FILE, REPORT_FILES, fit_files, other_run, refuse_other_report, report_files
from .html import render_html
from .ranking import rank_predictions
from .summarize import SCHEMA, summarize_fit, summarize_predictions
from .terminal import render_terminal
from .two_classes import EVEN, Decision

__all__ = [
    "EVEN",
    "FIT_FILES",
    "JSON_FILE",
    "REPORT_FILES",
    "SCHEMA",
    "Decision",
    "Report",
    "compare_predictions",
    "evaluate",
    "fit_files",
    "from_estimator",
    "other_run",
    "rank_predictions",
    "refuse_other_report",
    "render_html",
    "render_terminal",
    "report_files",
    "summarize_fit",
    "summarize_predictions",
]
