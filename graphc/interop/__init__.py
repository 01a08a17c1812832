"""Weights of other libraries.

    graphc.interop.load_torch_state_dict(m, module.state_dict())
"""

from .torch import load_torch_state_dict

__all__ = ["load_torch_state_dict"]
