"""The commands under one name, and what becomes of their errors.

Exit codes: 0 done; 2 the model, the data or the command is wrong (the message says how to mend it); 1 a fault of
graphc itself (with its traceback); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import errors
from . import compile, explain, generate, info, new, predict, profile, render, train, verify
from .screen import show_error
from .usage import UsageError, explained

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for command in (compile, train, predict, generate, explain, render, profile, info, new, verify):
    app.command(command.NAME)(command.run)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"graphc {version('graphc')}")
        raise typer.Exit


@app.callback()
def graphc(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Compile models written in a small Python DSL into readable, fast kernels with derived gradients.

    \b
    A first model, trained and used:
      graphc new mymodel.py
      graphc train mymodel.py
      graphc info build/mymodel

    `graphc COMMAND --help` explains a command.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on arguments (those of the process unless given); the exit code."""
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        code = app(args=given, prog_name="graphc", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UsageError as error:
        wrong = explained(error, given)
        show_error(wrong) if wrong else error.show()
        return int(error.exit_code)
    except errors.GraphcError as error:
        show_error(error)
        return error.exit_code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 1
