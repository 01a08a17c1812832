"""Layers and losses, written only in the DSL: what they do can be read here, and written by anyone."""

from .layers import linear
from .losses import binary_cross_entropy, cross_entropy, hinge, huber, kl_divergence, mae, mse

__all__ = ["binary_cross_entropy", "cross_entropy", "hinge", "huber", "kl_divergence", "linear", "mae", "mse"]
