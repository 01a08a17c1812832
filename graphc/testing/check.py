"""`check`: the verification of a model as one assertion."""

from __future__ import annotations

from typing import Any

from ..frontend.model import trace_models
from ..pipeline import DTYPES, resolve
from ..verify.certificate import Certificate
from ..verify.model import verify


def check(
    *models: Any,
    model: str | None = None,
    dtype: str = "float64",
    strict: bool = True,
    seed: int = 0,
    **hyperparameters: Any,
) -> Certificate:
    """Verify a model function, several, or a model file: its operations' adjoints, the rewrites that fire, and its
    compiled values and derivatives. AssertionError names what disagrees.

    strict: what is neither proved nor exact fails too. The certificate that is returned prints as a table.
    """
    chosen, name, _ = resolve(models, model)
    certificate = verify(trace_models(chosen, name, DTYPES[dtype], hyperparameters), seed)
    if not (certificate.strict if strict else certificate.passed):
        raise AssertionError("\n".join([f"{name} does not verify:", *map(str, certificate.open)]))
    return certificate
