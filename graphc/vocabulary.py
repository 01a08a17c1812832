"""Vocabularies: the tokens of a text as numbers, and back. They go along with a model that was trained on them.

    vocab = gc.Vocabulary.of("to be or not to be")      # its characters, in the order of their code points
    vocab.encode("be")                                  # array([2, 3])
    vocab.decode([2, 3])                                # "be"

A tokenizer of the `tokenizers` package (its file tokenizer.json) is used by the same methods: `gc.Tokenizer(path)`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ArtifactError, DataError, InputError, extra

BEGIN, END = "<s>", "</s>"
"""The tokens that begin and end a text, where a vocabulary has them; no text contains them."""
UNITS = ("character", "word")

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Vocabulary:
    """Tokens by number: characters, or words, which are parted by spaces.

    unknown: the token that stands for every other one; without it another one is an error.
    """

    def __init__(self, tokens: Iterable[str], unit: str = "character", unknown: str | None = None):
        self.tokens, self.unit, self.unknown = tuple(tokens), unit, unknown
        if unit not in UNITS:
            raise DataError(f"a vocabulary of the unit {unit!r}", how=f"one of {', '.join(UNITS)}")
        if any(not isinstance(t, str) or not t for t in self.tokens):
            raise DataError("a vocabulary's tokens are texts of a character or more")
        twice = [t for t, n in Counter(self.tokens).items() if n > 1]
        if twice:
            raise DataError(f"a vocabulary has the token {twice[0]!r} twice")
        if unknown is not None and unknown not in self.tokens:
            raise DataError(f"the vocabulary does not have its token for unknown ones, {unknown!r}")

    @classmethod
    def of(cls, text: str, *special: str) -> Vocabulary:
        """The characters of a text in the order of their code points, after special tokens such as <s>."""
        return cls([*special, *sorted(set(text))])

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # equal by content

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self)} {self.unit}s"

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The number of each token."""
        return {token: i for i, token in enumerate(self.tokens)}

    def encode(self, text: str | Iterable[str]) -> Numbers:
        """The numbers of a text's tokens, or of tokens. InputError names those that the vocabulary does not have."""
        tokens: Sequence[str] = text if isinstance(text, str) and self.unit == "character" else _words(text)
        other = None if self.unknown is None else self.index[self.unknown]
        numbers = [self.index.get(t, other) for t in tokens]
        if None in numbers:
            missing = list(dict.fromkeys(repr(t) for t, n in zip(tokens, numbers, strict=True) if n is None))
            listed = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            plural = "s" * (len(missing) > 1)
            raise InputError(
                f"the vocabulary does not have the {self.unit}{plural} {listed}",
                how=f"leave {'them' if plural else 'it'} out: the model knows {len(self)} {self.unit}s, those of its training",
            )
        return np.array(numbers, np.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of tokens' numbers, words with spaces between them."""
        return ("" if self.unit == "character" else " ").join(self.tokens[n] for n in numbers)

    def to_json(self) -> dict[str, Any]:
        """What vocab.json holds of it."""
        return {"unit": self.unit, "unknown": self.unknown, "tokens": list(self.tokens)}


class Tokenizer:
    """A tokenizer of the `tokenizers` package, from its file or its text (graphc's extra `text`)."""

    def __init__(self, source: str | Path):
        """source: the path of a tokenizer.json, or its content. ArtifactError where it cannot be read."""
        try:
            from tokenizers import Tokenizer as Implementation
        except ImportError as error:
            raise ArtifactError(
                "the model's tokenizer needs the package tokenizers, which is not installed",
                how=extra("text"),
            ) from error
        text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
        try:
            self._of = Implementation.from_str(Path(source).read_text("utf-8") if text is None else text)
        except Exception as error:  # the package raises plain exceptions
            name = "the tokenizer" if text else f"the tokenizer {source}"
            raise ArtifactError(f"{name} cannot be read: {error}", how="give a tokenizer.json") from error

    def __len__(self) -> int:
        return int(self._of.get_vocab_size())

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, Tokenizer) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # equal by content

    def __repr__(self) -> str:
        return f"Tokenizer of {len(self)} tokens"

    @property
    def index(self) -> Mapping[str, int]:
        """The number of each token."""
        return dict(self._of.get_vocab())

    def encode(self, text: str) -> Numbers:
        """The numbers of a text's tokens, without those that the tokenizer would put around it."""
        return np.array(self._of.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of tokens' numbers."""
        return str(self._of.decode([int(n) for n in numbers], skip_special_tokens=False))

    def to_json(self) -> dict[str, Any]:
        """What vocab.json holds of it."""
        return {"tokenizer": json.loads(self._of.to_str())}


AnyVocabulary = Vocabulary | Tokenizer


def _words(text: str | Iterable[str]) -> Sequence[str]:
    return text.split() if isinstance(text, str) else list(text)


def as_vocabulary(value: Any) -> AnyVocabulary | dict[str, AnyVocabulary]:
    """What a data set calls its vocabulary: one, tokens of one, or several by name. DataError where it is none of these."""
    if isinstance(value, AnyVocabulary):
        return value
    if isinstance(value, Mapping):
        return {str(name): _single(name, v) for name, v in value.items()}
    return _single("", value)


def _single(name: str, value: Any) -> AnyVocabulary:
    if isinstance(value, AnyVocabulary):
        return value
    if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)):
        return Vocabulary(value, "word")
    what = f"the vocabulary {name!r}" if name else "the vocabulary"
    raise DataError(f"{what} of the data is {type(value).__name__}", how="give a gc.Vocabulary, or a list of tokens")


def encoded(vocab: AnyVocabulary | Mapping[str, AnyVocabulary]) -> bytes:
    """The content of vocab.json."""
    named = {n: v.to_json() for n, v in vocab.items()} if isinstance(vocab, Mapping) else None
    data = {"one": vocab.to_json()} if not isinstance(vocab, Mapping) else {"named": named}
    return (json.dumps(data, ensure_ascii=False) + "\n").encode()


def decoded(data: bytes, path: str | Path) -> AnyVocabulary | dict[str, AnyVocabulary]:
    """The vocabulary of the content of a vocab.json; `path` is for the message of the ArtifactError."""

    def one(d: Mapping[str, Any]) -> AnyVocabulary:
        if "tokenizer" in d:
            return Tokenizer(json.dumps(d["tokenizer"]))
        return Vocabulary(d["tokens"], d["unit"], d["unknown"])

    try:
        content = json.loads(data)
        return one(content["one"]) if "one" in content else {n: one(d) for n, d in content["named"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise ArtifactError(f"the vocabulary {path} cannot be read: {error}", how="train the model again") from error
