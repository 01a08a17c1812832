"""Generation: a language model goes on with a text, one token after another.

A model generates if it has an output `logits` (B, T, V) that needs one integer input (B, T) alone: at each place, how
likely each token is to come next. One that carries a state from call to call reads the prompt in one call and then a
token a call; any other reads the whole text again for each token.

    m = gc.load("build/lstm_lm")
    print(gc.generate(m, "ROMEO:", max_tokens=200, temperature=0.8, seed=1))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError
from .runtime.model import CompiledModel, Entry
from .vocabulary import BEGIN, END, AnyVocabulary

Array = np.ndarray[Any, Any]
OUTPUT = "logits"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature: logits are divided by it; 0 takes the likeliest token. top_k: only the k likeliest. top_p: only the
    likeliest that together have at least this probability. None leaves all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"the temperature is {self.temperature}", how="0, or a number above it")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}", how="at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}", how="above 0, and at most 1")

    def probabilities(self, logits: Array) -> Array:
        """How likely each token is to be chosen, (V,) in float64."""
        x = np.asarray(logits, np.float64)
        if not self.temperature:
            return np.eye(len(x))[np.argmax(x)]
        order = np.argsort(-x, kind="stable")  # of equal logits the first is the likelier
        if self.top_k is not None:
            order = order[: self.top_k]
        p = np.exp((x[order] - x[order[0]]) / self.temperature)
        p /= p.sum()
        if self.top_p is not None:
            # up to the first place where those before it come to top_p; the likeliest is always among them
            p = p[np.cumsum(p) - p < self.top_p]
            p /= p.sum()
        chosen = np.zeros(len(x))
        chosen[order[: len(p)]] = p
        return chosen

    def sample(self, logits: Array, rng: np.random.Generator) -> int:
        """A token's number."""
        below = np.cumsum(self.probabilities(logits))
        return int(np.searchsorted(below, rng.random() * below[-1], side="right"))


def generate(
    model: CompiledModel,
    prompt: str = "",
    *,
    max_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    entry: str | None = None,
) -> str:
    """The text with which a model goes on after a prompt; see `stream`."""
    chosen = Sampling(temperature, top_k, top_p)
    return "".join(stream(model, prompt, chosen, max_tokens=max_tokens, seed=seed, stop=stop, entry=entry))


def stream(
    model: CompiledModel,
    prompt: str = "",
    sampling: Sampling | None = None,
    *,
    max_tokens: int = 200,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    entry: str | None = None,
) -> Iterator[str]:
    """The text with which a model goes on after a prompt, in pieces as they are made.

    It begins with <s> where the vocabulary has it, and ends at </s>, before the first of the texts `stop`, or after
    max_tokens tokens. The model's states are left alone. InputError where the model does not generate, where the
    vocabulary does not have a character or word of the prompt, or where there is nothing to begin with.
    """
    vocab = _vocabulary(model)
    if max_tokens < 0:
        raise InputError(f"max_tokens is {max_tokens}", how="at least 0")
    begin = [vocab.index[BEGIN]] if BEGIN in vocab.index else []
    tokens = [*begin, *map(int, vocab.encode(prompt))]
    if not tokens:
        raise InputError("there is nothing to begin with: the prompt is empty, and the vocabulary has no <s>", how="give a prompt")
    reader = _Reader(model, entry)
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in stops:
        raise InputError("an empty text to stop at", how="leave it out")
    return _pieces(reader, vocab, tokens, sampling or Sampling(), max_tokens, np.random.default_rng(seed), stops)


def _pieces(
    reader: _Reader,
    vocab: AnyVocabulary,
    tokens: list[int],
    sampling: Sampling,
    max_tokens: int,
    rng: np.random.Generator,
    stops: list[str],
) -> Iterator[str]:
    end, writer, held = vocab.index.get(END), _Writer(vocab), ""
    forbidden = [vocab.index[BEGIN]] if BEGIN in vocab.index else []
    new = tokens
    for _ in range(max_tokens):
        logits = np.array(reader.read(new)[: len(vocab)], np.float64)  # a model may have room for more tokens
        logits[forbidden] = -np.inf
        token = sampling.sample(logits, rng)
        if token == end:
            break
        new = [token]
        held += writer.add(token)
        found = min((at for s in stops if (at := held.find(s)) >= 0), default=None)
        if found is not None:
            yield held[:found]
            return
        ready = len(held) - _undecided(held, stops)
        if ready:
            yield held[:ready]
            held = held[ready:]
    held += writer.rest()
    if held:
        yield held


CONTEXT = 8
"""So many tokens before it decide how a token is written: whether with a space before it, say."""
BYTES = 4
"""The most tokens that a character takes, where a token may be a byte of it."""


class _Writer:
    """Writes tokens as text, each as soon as its characters are whole."""

    def __init__(self, vocab: AnyVocabulary):
        self.vocab, self.before, self.new = vocab, list[int](), list[int]()

    def add(self, token: int) -> str:
        """The text that a token makes whole."""
        self.new.append(token)
        # an incomplete character is decoded as U+FFFD
        return "" if self._text().endswith("\ufffd") and len(self.new) < BYTES else self.rest()

    def rest(self) -> str:
        """The text of what was not whole so far."""
        text = self._text()
        self.before, self.new = [*self.before, *self.new][-CONTEXT:], []
        return text

    def _text(self) -> str:
        return self.vocab.decode([*self.before, *self.new])[len(self.vocab.decode(self.before)) :]


def _undecided(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of a text that may become one of the texts to stop at."""
    lengths = (n for s in stops for n in range(min(len(s) - 1, len(text)), 0, -1) if text.endswith(s[:n]))
    return max(lengths, default=0)


def _vocabulary(model: CompiledModel) -> AnyVocabulary:
    vocab = model.vocab
    if isinstance(vocab, dict):
        raise InputError(f"{model.name} has several vocabularies: {', '.join(vocab)}", how="a model that generates has one")
    if vocab is None:
        raise InputError(
            f"{model.name} has no vocabulary", how="train it on data that have one: gc.Dataset(train=…, vocab=…)"
        )
    return vocab


class _Reader:
    """A model that reads tokens, and says what it takes for the next: a clone, so that states of the model are left alone."""

    def __init__(self, model: CompiledModel, name: str | None):
        twin = model.clone()
        self.entry, self.input = _generating(twin, name)
        carried = {n for n in self.entry.signature.update_needs if n in twin.carried}
        self.text: list[int] | None = None if carried else []

    def read(self, tokens: Sequence[int]) -> Array:
        """The logits (V,) of what comes after all tokens read so far."""
        if self.text is not None:
            self.text += tokens
            tokens = self.text
        given: dict[str, Any] = {self.input: np.array([tokens])}
        return self.entry.forward(outputs=OUTPUT, **given)[OUTPUT][0, -1]


def _generating(model: CompiledModel, name: str | None) -> tuple[Entry, str]:
    """The entry that generates, and its input. InputError where there is none."""
    if name is not None and name not in model.entries:
        raise InputError(f"{model.name} holds no model {name!r}", how=f"it holds: {', '.join(model.entries)}")
    entries = list(model.entries.values()) if name is None else [model.entries[name]]
    found = [(e, i) for e in entries if (i := _input_of(e)) is not None]
    if len(found) != 1:
        what = "several models that generate" if found else "no model that generates"
        raise InputError(
            f"{model.name} has {what}" + (f": {', '.join(e.name for e, _ in found)}" if found else ""),
            why=f"a model generates if its output {OUTPUT!r} (B, T, V) needs one integer input (B, T) alone",
            how="choose one by its name" if found else None,
        )
    return found[0]


def _input_of(entry: Entry) -> str | None:
    """The input from which alone an entry's logits come."""
    outputs = {d.name: d for d in entry.signature.outputs}
    needs = entry.signature.needs.get(OUTPUT, frozenset())
    if len(needs) != 1 or len(outputs[OUTPUT].shape) != 3:
        return None
    (declared,) = (d for d in entry.signature.inputs if d.name in needs)
    fits = declared.dtype.kind == "i" and len(declared.shape) == 2
    return declared.name if fits and outputs[OUTPUT].shape[:2] == declared.shape else None
