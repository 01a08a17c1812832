"""What a run says when a check of the values fails: the same on every device."""

from __future__ import annotations

from ..errors import RuntimeFault
from .program import Instruction


def index_fault(instruction: Instruction, value: int, limit: int, position: int) -> RuntimeFault:
    """An index out of range, found by an instruction that checks. A length is checked as the index of its last step."""
    text = instruction.message.format(value=value, limit=limit, position=position, length=value + 1)
    is_length = "{length}" in instruction.message
    how = f"a length must be from 1 to {limit}" if is_length else f"an index must be at least 0 and below {limit}"
    return RuntimeFault(text, where=instruction.where or None, how=how)
