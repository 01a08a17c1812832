"""`graphc compile FILE --explain-schedule`."""
from __future__ import annotations

from pathlib import Path

import pytest

from graphc.cli import main

XOR = Path(__file__).parents[2] / "models" / "xor.py"


@pytest.fixture
def told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        assert main(["compile", str(XOR), "--explain-schedule", *arguments]) == 0
        assert not list(tmp_path.iterdir()), "nothing is written"
        return capsys.readouterr().out

    return call


def test_both_programs_are_told(told):
    text = told()
    assert text.index("# xor, forward:y_hat,loss program") < text.index("# xor, gradient program")
    for line in ("own kernel: sum_1 is complete only after the loop", "reads 4 bytes, writes 4 bytes, does 1 operations",
                 "joined: reads y_hat in the same iteration", "xor.py:"):  # fmt: skip
        assert line in text


def test_one_program_alone(told):
    text = told("--program", "step")
    assert text.startswith("# xor, step program") and "gradient program" not in text
