"""Layers and losses, written only in the DSL: what they do can be read here, and written by anyone."""

from .cells import gru_cell, lstm_cell, rnn_cell
from .layers import linear
from .losses import binary_cross_entropy, cross_entropy, hinge, huber, kl_divergence, mae, mse
from .recurrent import gru, lstm, rnn

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "gru",
    "gru_cell",
    "hinge",
    "huber",
    "kl_divergence",
    "linear",
    "lstm",
    "lstm_cell",
    "mae",
    "mse",
    "rnn",
    "rnn_cell",
]
