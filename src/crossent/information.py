"""Information measures in one namespace, `cross_entropy` of two distributions among them."""

from crossent.numpy.information import (
    bits_per_byte,
    bits_per_dimension,
    bits_per_token,
    cross_entropy,
    entropy,
    js_divergence,
    kl_divergence,
    mutual_information,
    perplexity,
)

__all__ = [
    "bits_per_byte",
    "bits_per_dimension",
    "bits_per_token",
    "cross_entropy",
    "entropy",
    "js_divergence",
    "kl_divergence",
    "mutual_information",
    "perplexity",
]
