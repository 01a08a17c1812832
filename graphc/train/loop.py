"""The training loop: epochs of mini-batches, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, InputError, RuntimeFault
from ..runtime.model import CompiledModel, Entry
from ..vocabulary import as_vocabulary
from .checkpoint import Average, Checkpoint, Epoch
from .dataset import Batches, Dataset, Source
from .optimisers import SCOPE

OnBatch = Callable[[int, int, int, float], None]
"""Called (epoch, batches done in it, batches in it or 0, mean loss so far) after each batch; epochs count from 0."""

OnEpoch = Callable[[int, Epoch], None]
"""Called (epoch, what it came to) after each epoch."""


@dataclass(frozen=True)
class Result:
    """What `fit` did: the history of all epochs, those before a resumption among them; whether it ran to its end.

    epochs: how many of them it finished itself.
    """

    history: list[Epoch]
    finished: bool
    epochs: int


def fit(
    model: CompiledModel,
    data: Dataset,
    *,
    epochs: int = 20,
    batch_size: int = 32,
    seed: int = 0,
    entry: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    lr: float | None = None,
    settings: Mapping[str, Any] | None = None,
    on_batch: OnBatch | None = None,
    on_epoch: OnEpoch | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Train a model that was compiled with an optimiser.

    epochs: in total, those before a resumption included. batch_size: rows; the last batch may have fewer.
    seed: of the order of the data, which follows from (seed, epoch). entry: the model, of a file with several that have a
    loss.
    checkpoint: a file, replaced after each epoch and when stopped. resume: go on from it, to the same bits as if never
    stopped. lr: another learning rate than the optimiser's or the checkpoint's. settings: stored in the checkpoint.
    stop: asked after each batch; true ends the training there.

    States that the model carries from batch to batch (`model.carried`) are taken back to their beginning where an epoch
    begins, and where a pass over the validation data does. The model takes the vocabulary of the data, if they have one.

    RuntimeFault where the loss is no longer a number, DataError where the data do not fit.
    """
    chosen = learner(model, entry)
    _check_order(model, data.train, "train")
    batches = Batches(data.train, chosen.signature, batch_size, "train")
    if data.valid is not None:
        _check_order(model, data.valid, "valid")
    valid = None if data.valid is None else Batches(data.valid, chosen.signature, batch_size, "valid")
    place = None if checkpoint is None else Path(checkpoint)
    history, at, average = list[Epoch](), 0, Average()
    if resume:
        if place is None:
            raise InputError("there is no checkpoint to resume from", how="fit(…, checkpoint=PATH, resume=True)")
        stored = Checkpoint.load(place)
        stored.restore(model, place)
        history, at, average = stored.history, stored.batch, stored.average
    if lr is not None:
        model.states[f"{SCOPE}/lr"][...] = lr
    if data.vocab is not None:
        model.vocab = as_vocabulary(data.vocab)

    before = len(history)

    def save() -> None:
        if place is not None:
            Checkpoint.of(model, settings or {}, history, at, average).save(place)

    if not resume:
        save()  # a folder that cannot be written is found before the work, not after it
    for number in range(before, epochs):
        begun = time.perf_counter()
        if not at:
            model.reset(model.carried)
        for batch, rows in batches.epoch(seed, number, at):
            values = _scalars(chosen, chosen.step(**batch))
            at += 1
            if not math.isfinite(values["loss"]):
                raise RuntimeFault(
                    f"the loss is {values['loss']} in epoch {number + 1}, batch {at}",
                    why="the steps are too large, or the data hold NaN or very large numbers",
                    how="try a smaller learning rate, or scale the data",
                )
            average.add(values, rows)
            if on_batch is not None:
                on_batch(number, at, len(batches), average.means["loss"])
            if stop is not None and stop():
                save()
                return Result(history, False, len(history) - before)
        metrics = {} if valid is None else evaluate(model, valid, entry)
        history.append(Epoch(average.means, metrics, time.perf_counter() - begun))
        at, average = 0, Average()
        save()
        if on_epoch is not None:
            on_epoch(number, history[-1])
    return Result(history, True, len(history) - before)


def evaluate(model: CompiledModel, batches: Batches, entry: str | None = None) -> dict[str, float]:
    """The means of the scalar outputs over batches, weighted by rows. The model is left as it was.

    States that it carries from batch to batch begin anew with the first one.
    """
    chosen = learner(model, entry)
    average = Average()
    with _beginning(model):
        for batch, rows in batches.epoch():
            wanted = [n for n in _scalar_names(chosen) if chosen.signature.needs[n] <= batch.keys()]
            with _unchanged(model.params):  # a learning rule of the model's own must not learn from these data
                average.add(_scalars(chosen, chosen.forward(**batch, outputs=wanted)), rows)
    return average.means


def learner(model: CompiledModel, name: str | None = None) -> Entry:
    """The model that is trained: of a name, the only one, or the only one with a loss. InputError where there is none."""
    learning = [n for n, e in model.entries.items() if "loss" in e.signature.needs]
    if name is None and len(model.entries) > 1 and len(learning) != 1:
        raise InputError(f"{model.name} holds several models: {', '.join(model.entries)}", how="choose one: entry=NAME")
    if name is not None and name not in model.entries:
        raise InputError(f"{model.name} holds no model {name!r}", how=f"it holds: {', '.join(model.entries)}")
    entry = model.entries[name or next(iter(learning or model.entries))]
    if "loss" not in entry.signature.needs:
        raise InputError(
            f"model {entry.name} has no output named 'loss', so there is nothing to train",
            how="return gc.outputs(loss=…), a scalar",
        )
    return entry


def _scalar_names(entry: Entry) -> list[str]:
    return [d.name for d in entry.signature.outputs if not d.shape]


def _scalars(entry: Entry, outputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    return {n: float(outputs[n]) for n in _scalar_names(entry) if n in outputs}


def _check_order(model: CompiledModel, source: Source, name: str) -> None:
    """DataError where a state is carried from batch to batch of data that have no order."""
    if model.carried and isinstance(source, Mapping):
        raise DataError(
            f"the model carries the state {model.carried[0]!r} from batch to batch, but the {name} data are arrays",
            why="arrays are shuffled and cut: a batch does not go on where the one before it ended, and the last is smaller",
            how="give batches in their order, such as gc.train.Streams(…)",
        )


@contextmanager
def _beginning(model: CompiledModel) -> Iterator[None]:
    """Inside, what the model carries from batch to batch begins anew; afterwards all states are what they are now."""
    kept = {n: model.states[n].copy() for n in model.carried if n in model.states}
    fixed = {n: a for n, a in model.states.items() if n not in kept}
    model.reset(model.carried)
    try:
        with _unchanged(fixed):
            yield
    finally:
        model.reset(model.carried)
        model.set_states(kept)


@contextmanager
def _unchanged(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Iterator[None]:
    """Whatever happens inside, the arrays hold afterwards what they hold now."""
    before = {n: a.copy() for n, a in arrays.items()}
    try:
        yield
    finally:
        for name, array in before.items():
            arrays[name][...] = array
