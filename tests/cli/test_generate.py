"""`graphc generate`, from a model file to text."""

import json

import pytest

import graphc as gc
from graphc.cli import main

MODEL = '''
import graphc as gc

@gc.model
def lm(x: gc.i64["B", "T"], y: gc.i64["B", "T"]):
    h0 = gc.state("h", ("B", 16))
    hs, h = gc.nn.rnn(gc.take(gc.param("E", (8, 8)), x), 16, initial=h0)
    gc.update(h0, h)
    logits = gc.nn.linear(hs, 8)
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, y))

def data():
    text = "abcd é\\n" * 40
    vocab = gc.Vocabulary.of(text)
    return gc.Dataset(train=gc.train.Streams(vocab.encode(text), 4, 6), vocab=vocab)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("lm")
    (place / "lm.py").write_text(MODEL, encoding="utf-8")
    arguments = ["train", str(place / "lm.py"), "-o", str(place / "build"), "--epochs", "12", "--lr", "0.03", "--clip", "1", "--no-plot"]
    assert main(arguments) == 0
    return place / "build" / "lm"


def run(capsys, *arguments):
    code = main(["generate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_goes_on_with_the_prompt(folder, capsys):
    code, out, _ = run(capsys, folder, "--prompt", "abc", "--temperature", "0", "--max-tokens", "12")
    assert code == 0 and out == "abcd é\nabcd é\na\n"


def test_it_says_what_the_library_says(folder, capsys):
    options = dict(max_tokens=30, temperature=1.5, top_k=4, top_p=0.9, seed=3, stop=["\n"])
    wanted = gc.generate(gc.load(folder), "b", **options)
    arguments = ["--max-tokens", 30, "--temperature", 1.5, "--top-k", 4, "--top-p", 0.9, "--seed", 3, "--stop", "\n"]
    _, out, _ = run(capsys, folder, "--prompt", "b", *arguments)
    assert out == f"b{wanted}\n"
    _, out, _ = run(capsys, folder, "--prompt", "b", *arguments, "--json")
    assert json.loads(out) == {"model": "lm", "prompt": "b", "text": wanted}


@pytest.mark.parametrize(
    "arguments, facts",
    [
        (["--prompt", "añb"], ["the vocabulary does not have the character 'ñ'", "how: "]),
        ([], ["nothing to begin with", "give a prompt"]),
        (["--prompt", "a", "--top-p", "2"], ["top_p is 2.0"]),
        (["--prompt", "a", "--model", "other"], ["lm holds no model 'other'"]),
    ],
)
def test_bad_input_is_explained(folder, capsys, arguments, facts):
    code, out, err = run(capsys, folder, *arguments)
    assert code == 2 and out == "" and all(f in err for f in facts), err


def test_a_model_without_a_vocabulary_says_so(folder, capsys, tmp_path):
    assert main(["compile", str(folder.parent.parent / "lm.py"), "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    code, _, err = run(capsys, tmp_path / "lm", "--prompt", "a")
    assert code == 2 and "lm has no vocabulary" in err and "train it" in err
