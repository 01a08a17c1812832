"""`graphc generate`: a trained language model goes on with a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options, screen

NAME = "generate"


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The trained model, such as build/lstm_lm.", show_default=False)
    ],
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="The text to go on with.")] = "",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", metavar="NUMBER", min=0, help="Stop after so many tokens.")
    ] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="NUMBER", min=0, help="Below 1 likelier, above 1 bolder; 0: the likeliest.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="NUMBER", min=1, help="Choose among the likeliest so many tokens.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="SHARE", help="Choose among the likeliest that together have this probability."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="NUMBER", min=0, help="The seed of the choice.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="Stop before this text; may be given several times.")
    ] = None,
    model: options.EntryName = None,
    as_json: options.Json = False,
) -> None:
    """Let a trained language model go on with a text.

    The prompt is printed, then what the model makes of it as it is made. It ends at </s> where the vocabulary has that
    token, at a text of --stop, or after --max-tokens. The same seed gives the same text.

    \b
    Examples:
      graphc generate build/lstm_lm --prompt "12 green bottles"
      graphc generate build/lstm_lm --prompt "12 green bottles" --temperature 0.7 --max-tokens 500
      graphc generate build/lstm_lm --prompt "7 green" --top-k 5 --seed 3 --stop "."
    """
    from ..generation import Sampling, stream
    from ..runtime.artifact import load

    sampling = Sampling(temperature, top_k, top_p)
    with screen.KernelProgress() as progress:
        compiled = load(folder, progress)
        pieces = stream(
            compiled, prompt, sampling, max_tokens=max_tokens, seed=seed, stop=stop or (), entry=model
        )
        first = next(pieces, "")  # kernels are compiled by now: nothing is drawn over the text
    if as_json:
        screen.print_json({"model": compiled.name, "prompt": prompt, "text": first + "".join(pieces)})
        return
    typer.echo(prompt + first, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()
