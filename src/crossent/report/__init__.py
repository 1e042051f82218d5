"""From predictions to a report: `summarize` computes one plain dict, the renderers only show it."""

from .html import render_html
from .summarize import SCHEMA, summarize_fit, summarize_predictions
from .terminal import render_terminal

__all__ = ["SCHEMA", "render_html", "render_terminal", "summarize_fit", "summarize_predictions"]
