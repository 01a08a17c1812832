"""Commands that are given wrongly: Typer's errors in the form of graphc's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer

from ..errors import InputError

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What Typer raises where a command is given wrongly: a class of Click's, or of its own, by its version."""
PYDANTIC = ((r"Value error, ", ""), (r"Input should be", "it must be"), (r", unable to parse .*", ""))
"""Words of Pydantic's in Typer's messages, and what stands in their place."""


def explained(error: Any, arguments: Sequence[str]) -> InputError | None:
    """A usage error with its mend; None where it is the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return None
    option = getattr(error, "option_name", None)
    command = error.ctx.command_path if error.ctx else ""
    explains = f"{command} -h explains it" if command else None
    if type(error).__name__ == "NoSuchOption" and option and explains:
        return InputError(f"{command} has no option {option}", how=_option(error, option, arguments, explains))
    text = error.format_message().rstrip(".")
    for words, ours in PYDANTIC:
        text = re.sub(words, ours, text)
    return InputError(text[:1].lower() + text[1:], how=explains)


def _option(error: Any, option: str, arguments: Sequence[str], explains: str) -> str:
    """The option that may be meant; else how a hyperparameter is given, by the name and the value that stand there."""
    known = [name for parameter in error.ctx.command.params for name in getattr(parameter, "opts", ())]
    near = get_close_matches(option, [name for name in known if name.startswith("--")], 1, 0.7)
    if near:
        return f"did you mean {near[0]}? {explains}"
    if "--set" not in known or not option.startswith("--"):
        return explains
    at = next((i for i, text in enumerate(arguments) if text.partition("=")[0] == option), None)
    value = "VALUE"
    if at is not None:
        _, equals, joined = arguments[at].partition("=")
        after = arguments[at + 1 : at + 2]
        value = joined if equals else after[0] if after and not after[0].startswith("-") else value
    return f"hyperparameters are given as --set {option.removeprefix('--')}={value}; {explains}"
