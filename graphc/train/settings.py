"""How to train: the settings of `graphc train`, from the command line, a checkpoint, the model file, or by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from ..errors import ArtifactError, GraphcError, ModelError, raise_all
from ..frontend.model import Optimiser
from .optimisers import SGD, Adam, AdamW

OPTIMISERS = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class Settings:
    """How to train. A model file may state its own: `training = dict(epochs=40, optimizer="adam", lr=1e-3)`.

    lr: 1e-3 for Adam and AdamW, 1e-2 for SGD, unless given. momentum: of SGD. weight_decay: 1e-2 for AdamW, else 0.
    clip: the largest norm of all gradients together; None leaves them as they are.
    """

    epochs: int = 20
    batch_size: int = 32
    optimizer: str = "adam"
    lr: float | None = None
    momentum: float = 0.0
    weight_decay: float | None = None
    clip: float | None = None
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMISERS:
            raise ModelError(f"there is no optimiser {self.optimizer!r}", how=f"one of {', '.join(OPTIMISERS)}")
        if self.momentum and self.optimizer != "sgd":
            raise ModelError(f"{self.optimizer} has no momentum to set", how="--momentum goes with --optimizer sgd")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}, it must be at least 1")

    def optimiser(self) -> Optimiser:
        """The optimiser that is compiled into the step."""
        given: dict[str, Any] = {
            n: v for n, v in (("lr", self.lr), ("weight_decay", self.weight_decay), ("clip", self.clip)) if v is not None
        }
        if self.optimizer == "sgd":
            return SGD(momentum=self.momentum, **given)
        return (AdamW if self.optimizer == "adamw" else Adam)(**given)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, for JSON."""
        return asdict(self)


def of_model(given: Mapping[str, Any], training: Mapping[str, Any], where: str) -> Settings:
    """Settings of the command line, else of the model file's `training`, else by default."""
    known = {f.name for f in fields(Settings)}
    errors: list[GraphcError] = []
    for name in training:
        if name not in known:
            near = get_close_matches(name, known, 1)
            errors.append(
                ModelError(
                    f"training has no setting {name!r}",
                    where=where,
                    how=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}",
                )
            )
    raise_all(errors)
    return Settings(**{**training, **given})


MAY_CHANGE = ("epochs", "lr")


def of_checkpoint(given: Mapping[str, Any], stored: Mapping[str, Any]) -> Settings:
    """Settings to resume with: those of the checkpoint, but for a new number of epochs or learning rate."""
    known = {f.name for f in fields(Settings)}
    try:
        before = Settings(**{n: v for n, v in stored.items() if n in known})
    except TypeError as error:
        raise ArtifactError(
            f"the checkpoint's settings cannot be read: {error}", how="train again without --resume"
        ) from error
    for name, value in given.items():
        if name not in MAY_CHANGE and value != getattr(before, name):
            option = f"--{name.replace('_', '-')}"
            raise ArtifactError(
                f"the checkpoint was trained with {option} {getattr(before, name)}, not {value}",
                how=f"leave {option} out to go on, or train again without --resume",
            )
    return Settings(**{**before.as_dict(), **given})
