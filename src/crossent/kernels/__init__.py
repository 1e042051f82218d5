"""What computes: the reference in NumPy, compiled kernels for processors and for GPUs, and which of them serve here."""

from .registry import why_chosen, why_refused

__all__ = ["why_chosen", "why_refused"]
