"""What the tests of the command line share."""
import pytest

from graphc.cli import main


@pytest.fixture
def run(capsys):
    """Run the command line: (exit code, stdout, stderr)."""
    def call(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return (code, *capsys.readouterr())
    return call
