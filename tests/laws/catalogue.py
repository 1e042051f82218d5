"""All laws: importing the modules that state them fills the list."""

from . import derivatives, heads, structure
from .law import LAWS, Law

__all__ = ["LAWS", "Law", "derivatives", "heads", "structure"]
