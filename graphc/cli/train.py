"""`graphc train`: a model file learns from data, and becomes a trained folder."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArtifactError, DataError, ModelError, extra
from . import options, screen
from .place import check_name

if TYPE_CHECKING:
    from ..runtime.model import CompiledModel
    from ..runtime.signature import Declared
    from ..train.dataset import Dataset
    from ..train.loop import Result
    from ..train.settings import Settings
    from .source import Source

NAME = "train"
STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""
SET = "set"
"""Where a checkpoint's settings hold those of --set."""


class OptimizerName(str, Enum):
    """Optimisers by name."""

    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


def run(
    model_file: options.ModelFile,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Train on this .npz, .csv or .json file instead of the model file's own data().",
        ),
    ] = None,
    output: options.Output = Path("build"),
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="NUMBER",
            min=1,
            help="Passes over the data, in total: of a resumed training the earlier ones count.  [default: 20]",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="ROWS", min=1, help="Examples in a step.  [default: 32]")
    ] = None,
    optimizer: Annotated[
        OptimizerName | None, typer.Option("--optimizer", help="What turns gradients into steps.  [default: adam]")
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", metavar="RATE", help="The learning rate.  [default: 0.001; 0.01 for sgd]")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option("--momentum", metavar="FACTOR", help="The momentum of sgd.  [default: 0]")
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            "--weight-decay", metavar="FACTOR", help="The decay of the parameters.  [default: 0; 0.01 for adamw]"
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option("--clip", metavar="NORM", help="The largest norm of the gradients; larger ones are scaled down."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="NUMBER",
            min=0,
            help="The seed of the initial parameters and of the data's order.  [default: 0]",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder, with its settings.")
    ] = False,
    model: options.ModelName = None,
    settings: options.Settings = None,
    dtype: Annotated[
        options.DTypeName | None, typer.Option("--dtype", help="The type of the parameters.  [default: float32]")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the loss curve.")] = True,
    as_json: options.Json = False,
) -> None:
    """Train a model and write the trained folder, a checkpoint and the loss curve.

    The data come from the model file's data() or from --data. A .csv has one example a row; its header names the inputs: y
    for one number a row, x[0], x[1], … for a vector. A checkpoint is written after each epoch and on Ctrl-C;
    --resume goes on from there as if it had never stopped. The defaults below are those of graphc; a model file may
    state its own, such as training = dict(epochs=40, lr=1e-3).

    \b
    Examples:
      graphc train models/xor.py
      graphc train models/digits.py --epochs 40 --batch-size 32 --lr 0.001
      graphc train mymodel.py --data points.csv --optimizer sgd --momentum 0.9
      graphc train models/digits.py --epochs 80 --resume
    """
    from ..pipeline import Options
    from ..runtime.artifact import check_place, checkpoint_of
    from ..train.checkpoint import Checkpoint
    from ..train.loop import fit, learner
    from ..train.settings import of_checkpoint, of_model
    from .source import read

    if model_file.is_file():
        check_name(model_file, output)
    source = read(model_file, model, settings)
    target = output / source.file.name
    check_place(target)
    checkpoint = checkpoint_of(target)
    options_given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer and optimizer.value,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "clip": clip,
        "seed": seed,
        "dtype": dtype and dtype.value,
    }
    given = {n: v for n, v in options_given.items() if v is not None}
    if resume:
        stored = Checkpoint.load(checkpoint).settings
        source, chosen = _resumed(source, stored), of_checkpoint(given, stored)
    else:
        chosen = of_model(given, source.file.training, str(source.file.path))
    with (
        screen.TrainingProgress(chosen.epochs, quiet=as_json) as bar,
        _ctrl_c() as stopped,
    ):
        compilation = source.compilation(
            Options(dtype=chosen.dtype, seed=chosen.seed, progress=bar.kernel), chosen.optimiser()
        )
        compiled = compilation.model()
        learning = [n for n, e in compiled.entries.items() if "loss" in e.signature.needs]
        if len(learning) > 1:
            raise ModelError(
                f"{source.file.path.name} defines several models with a loss: {', '.join(learning)}",
                how="choose the one to train with --model NAME",
            )
        entry = learner(compiled)
        dataset = dataset_of(source, data, entry.signature.inputs, entry.signature.needs["loss"])
        result = fit(
            compiled,
            dataset,
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            seed=chosen.seed,
            checkpoint=checkpoint,
            resume=resume,
            lr=lr,
            settings={**chosen.as_dict(), SET: _plain(source.settings)},
            on_batch=bar.batch,
            on_epoch=bar.epoch,
            stop=lambda: bool(stopped),
        )
    if not result.finished:
        screen.note(
            f"stopped in epoch {len(result.history) + 1} of {chosen.epochs}; the checkpoint is {checkpoint}\n"
            "to go on, give the same command with --resume"
        )
        raise typer.Exit(STOPPED)
    with screen.KernelProgress() as progress:
        written = compiled.save(output, progress)
    _report(
        source.file.name,
        written,
        checkpoint,
        chosen,
        result,
        _test(compiled, entry.name, dataset, chosen),
        output if plot else None,
        as_json,
    )


def _resumed(source: Source, stored: Mapping[str, Any]) -> Source:
    """The source with the values of --set that a training began with."""
    before = {n: v for n, v in stored.get(SET, {}).items() if n in source.settings}
    for name, value in source.given.items():
        if before.get(name) != value:
            raise ArtifactError(
                f"the checkpoint was trained with --set {name}={before.get(name)}, not {value}",
                how="leave --set out to go on, or train again without --resume",
            )
    return replace(source, given=before)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that JSON can hold as they are."""
    return {n: v for n, v in settings.items() if isinstance(v, (bool, int, float, str))}


def dataset_of(source: Source, path: Path | None, inputs: Sequence[Declared], needed: Collection[str] = ()) -> Dataset:
    """The data of --data, which must have the inputs that are needed, or of the model file."""
    from ..frontend.load import call_data
    from ..train.dataset import Dataset
    from ..train.files import read_arrays

    if path is not None:
        return Dataset(train=read_arrays(path, inputs, needed))
    data = call_data(source.file, **source.data_options)
    if not isinstance(data, Dataset):
        raise DataError(
            f"data() of {source.file.path.name} returns {type(data).__name__}", how="return gc.Dataset(train=…)"
        )
    return data


def _test(compiled: CompiledModel, entry: str, data: Dataset, chosen: Settings) -> dict[str, float]:
    """What the trained model comes to on the test data, if there are any."""
    from ..train.dataset import Batches
    from ..train.loop import evaluate

    if data.test is None:
        return {}
    batches = Batches(data.test, compiled.entries[entry].signature, chosen.batch_size, "test")
    return evaluate(compiled, batches, entry)


@contextmanager
def _ctrl_c() -> Iterator[list[bool]]:
    """A list that is filled by Ctrl-C, so that training stops between two steps; a second Ctrl-C stops at once."""
    pressed: list[bool] = []

    def press(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    if threading.current_thread() is not threading.main_thread():  # only the main thread hears signals
        yield pressed
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _report(
    name: str,
    folder: Path,
    checkpoint: Path,
    chosen: Settings,
    result: Result,
    test: Mapping[str, float],
    plots: Path | None,
    as_json: bool,
) -> None:
    """Draw the curve into the folder `plots`, and say what came of the training."""
    from ..train.curve import draw_curve
    from ..train.settings import Settings

    curve = plots and draw_curve(result.history, plots / f"{name}.png", name)
    if as_json:
        screen.print_json(
            {
                "folder": str(folder),
                "checkpoint": str(checkpoint),
                "curve": curve and str(curve),
                "settings": chosen.as_dict(),
                "history": [
                    {"epoch": n, "train": dict(e.train), "valid": dict(e.valid) or None, "seconds": e.seconds}
                    for n, e in enumerate(result.history, 1)
                ],
                "test": dict(test) or None,
            }
        )
    else:
        done, numbers = len(result.history), screen.epoch_numbers(result.history[-1])
        if result.epochs:
            screen.say(f"trained {name} for {done} epochs: {numbers}")
        else:
            screen.say(
                f"the training of {done} epochs is complete: --epochs {done + Settings.epochs} goes on\n{numbers}"
            )
        if test:
            screen.say(f"on the test data: {screen.numbers(test)}")
        screen.say(f"the trained model is {folder}")
        if curve:
            screen.say(f"the loss curve is {curve}")
    if plots and not curve:
        screen.note(f"no loss curve was drawn, since matplotlib is not installed: {extra('plot')}")
