"""graphc against other libraries, measured in turns; `tools/bench` is the command.

cases/        what is measured: a computation said once for each library, and the target that it must reach
workload.py   the form of a computation: its inputs, its models, what a call gives
peers.py      the competitors: how each is found, set up, and made to run a model
yardsticks.py what the machine can do: arithmetic and copying
measure.py    agreement first, then times in turns
worker.py     the process that measures; bench.py starts it
results.py    figures as data; targets.py compares them with what must be reached
report.py     figures as text, plot.py as pictures
"""
