"""Data sets and data files: what they give, and what is said of those that do not fit."""
import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import bool_, f32, f64, i32, i64
from graphc.graph.size import parse, size
from graphc.runtime.signature import Declared
from graphc.train.dataset import Batches, as_declared, conform
from graphc.train.files import read_arrays


def declared(name, dtype, *shape):
    return Declared(name, dtype, tuple(parse(s) if isinstance(s, str) else size(s) for s in shape))


X, Y, M = declared("x", f32, "B", 2), declared("y", i64, "B"), declared("mask", bool_, "B")


@gc.model
def net(x: gc.f32["B", 2], y: gc.i64["B"]):
    return gc.outputs(loss=gc.sum(x) + gc.sum(y))


@gc.model
def scaled(x: gc.f32["B", 2], scale: gc.f32[3]):
    return gc.outputs(loss=gc.sum(x) + gc.sum(scale))


@gc.model
def labelled(label: gc.i64["B"]):
    return gc.outputs(loss=gc.mean(label))


SIGNATURE = gc.compile(net).signature


def rows(n):
    return dict(x=np.arange(2.0 * n).reshape(n, 2), y=np.arange(n))


def refuses(f, *facts):
    with pytest.raises(gc.GraphcError) as error:
        f()
    for fact in facts:
        assert str(fact) in str(error.value), str(error.value)


# Batches

def test_batches_in_order_have_every_row_once_and_the_declared_types():
    batches = Batches(rows(7), SIGNATURE, 3)
    got = list(batches.epoch())
    assert [n for _, n in got] == [3, 3, 1] and len(batches) == 3
    assert np.concatenate([b["y"] for b, _ in got]).tolist() == list(range(7))
    for batch, _ in got:
        assert batch["x"].dtype == np.float32 and batch["y"].dtype == np.int64 and batch["x"].flags.c_contiguous
        np.testing.assert_array_equal(batch["x"][:, 0], 2 * batch["y"])


def order(seed, epoch, start=0):
    return np.concatenate([b["y"] for b, _ in Batches(rows(50), SIGNATURE, 8).epoch(seed, epoch, start)]).tolist()


def test_the_order_follows_from_seed_and_epoch_alone():
    assert order(0, 0) == order(0, 0) != list(range(50))
    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 0) != order(0, 1) != order(1, 0) != order(0, 0)
    assert order(0, 3, start=2) == order(0, 3)[16:]


def test_arrays_without_the_batch_axis_go_along_whole():
    for batch, _ in Batches(dict(x=np.zeros((5, 2)), scale=[1, 2, 3]), gc.compile(scaled).signature, 2).epoch(0, 0):
        assert batch["scale"].tolist() == [1, 2, 3]


def test_an_iterable_of_batches_is_read_each_epoch_in_its_order():
    for source in ([rows(2), rows(3)], iter([rows(2), rows(3)])):
        batches = Batches(source, SIGNATURE, 99)
        for _ in range(2):
            assert [n for _, n in batches.epoch(0, 0)] == [2, 3]
        assert [n for _, n in batches.epoch(0, 0, start=1)] == [3]


def test_data_that_do_not_fit():
    refuses(lambda: Batches(dict(x=np.zeros((3, 2))), SIGNATURE, 2), "no 'y'", "y: i64[B]")
    refuses(lambda: Batches(dict(labels=[1, 2, 3]), gc.compile(labelled).signature, 2, "valid"), "valid", "label: i64[B]", "rename 'labels'")
    refuses(lambda: Batches(dict(x=np.zeros((3, 2)), y=[1, 2]), SIGNATURE, 2), "x has 3", "y has 2")
    refuses(lambda: Batches(dict(x=np.zeros((0, 2)), y=np.zeros(0, int)), SIGNATURE, 2), "no rows")
    refuses(lambda: Batches(dict(x=np.zeros((3, 4)), y=[0.5, 1, 2]), SIGNATURE, 2), "(3, 4)", "0.5")      # both at once
    refuses(lambda: Batches(3, SIGNATURE, 2), "int")
    refuses(lambda: list(Batches([], SIGNATURE, 2).epoch()), "no batches")
    refuses(lambda: list(Batches([3], SIGNATURE, 2).epoch()), "batch 0", "int")
    refuses(lambda: list(Batches([rows(2), dict(x=np.zeros((1, 2)))], SIGNATURE, 2).epoch()), "batch 1", "'y'")


def test_other_names_are_left_alone():
    assert set(conform({**rows(2), "note": ["a", "b"]}, SIGNATURE, ("x", "y"), "train")) == {"x", "y"}


@pytest.mark.parametrize("value, dtype, lost", [
    ([0.1, 1e10], f32, None), ([np.nan, np.inf], f32, None), ([1e39], f32, 0), ([1, 2], f32, None), ([1, 2 ** 24 + 1], f32, 1),
    ([3.0, -2.0], i64, None), ([3.0, 2.5], i64, 1), ([np.nan], i64, 0), ([2.0 ** 63], i64, 0), ([2 ** 31], i32, 0), ([2 ** 31 - 1], i32, None),
    ([0, 1], bool_, None), ([0, 2], bool_, 1), ([True], f64, None), (np.array([2 ** 64 - 1], np.uint64), i64, 0)])
def test_casting_loses_nothing_but_the_rounding_of_floats(value, dtype, lost):
    d = declared("v", dtype, "B")
    if lost is None:
        got = as_declared(value, d, "train")
        assert got.dtype == dtype.numpy
        np.testing.assert_array_equal(got, np.asarray(value).astype(dtype.numpy))
    else:
        refuses(lambda: as_declared(value, d, "train"), f"'v'[{lost}]", str(np.asarray(value)[lost]), dtype.name)


def test_what_is_no_array_of_numbers():
    refuses(lambda: as_declared([[1], [2, 3]], X, "train"), "'x'")
    refuses(lambda: as_declared(["a"], Y, "train"), "'y'", "numbers")
    refuses(lambda: as_declared([None], Y, "train"), "'y'", "object")


# Files

def write(folder, text, name="d.csv"):
    (folder / name).write_text(text)
    return folder / name


def csv(folder, text, *inputs):
    return read_arrays(write(folder, text), inputs or (X, Y))


@pytest.mark.parametrize("names", ["x[0],x[1]", "x.0,x.1"])
def test_csv_columns_of_a_vector(tmp_path, names):
    got = csv(tmp_path, f"y,{names},other\n3,1,2.5,a\n\n4.0,-1e3, 7,b\n")
    assert got["x"].tolist() == [[1, 2.5], [-1000, 7]] and got["y"].tolist() == [3, 4]


def test_csv_columns_in_another_order(tmp_path):
    assert csv(tmp_path, "x[1],y,x[0]\n1,2,3\n")["x"].tolist() == [[3, 1]]


def test_csv_of_one_column_vectors_truths_and_spreadsheets(tmp_path):
    one = declared("z", f64, "B", 1)
    got = csv(tmp_path, "\ufeffz,mask\r\n0.5,true\r\n1,0\r\n", one, M)       # a byte order mark, as spreadsheets write it
    assert got["z"].tolist() == [[0.5], [1]] and got["mask"].tolist() == [True, False]


def test_csv_of_a_symbolic_width(tmp_path):
    assert csv(tmp_path, "x[0],x[1],x[2]\n1,2,3\n", declared("x", f32, "B", "T"))["x"].shape == (1, 3)


def test_large_whole_numbers_are_exact(tmp_path):
    assert csv(tmp_path, f"y\n{2 ** 53 + 1}\n")["y"].tolist() == [2 ** 53 + 1]


def test_csv_cells_are_named_by_file_line_and_column_all_at_once(tmp_path):
    text = "y,x[0],x[1]\n1,2,3\n1.5,five,3\n1,,3\n"
    refuses(lambda: csv(tmp_path, text), "d.csv:3:1", "'1.5'", "d.csv:3:2", "'five'", "d.csv:4:2", "'x[0]'", "f32[B, 2]")


@pytest.mark.parametrize("text, facts", {
    "": ["empty"],
    "x[0],x[1],y\n1,2\n": ["d.csv:2", "2 cells", "3"],
    "y,y\n1,1\n": ["d.csv:1", "'y'"],
    "x[0],y\n1,2\n": ["x[1]", "f32[B, 2]"],
    "x[0],x[1],x[2]\n1,2,3\n": ["3 columns", "not 2"],
    "x\n1\n": ["'x'", "x[0]"],
    "a,b\n1,2\n": ["d.csv is an input of the model: x: f32[B, 2], y: i64[B]", "how: name its columns x[0], x[1], y; the file has a, b"],
    "x1,x2,y\n1,2,3\n": ["d.csv is the input x: f32[B, 2]\n", "how: name its columns x[0], x[1]; the file has x1, x2, y"],
    "x_0,y\n1,2\n": ["how: name its columns x[0], x[1]; the file has x_0, y"],
    "y\n\"1\n": ["d.csv"],
}.items())
def test_tables_that_do_not_fit(tmp_path, text, facts):
    refuses(lambda: csv(tmp_path, text), *facts)


def test_a_table_must_have_the_inputs_that_are_needed(tmp_path):
    table = write(tmp_path, "a,b,y\n1,2,3\n")
    assert set(read_arrays(table, (X, Y))) == set(read_arrays(table, (X, Y), ["y"])) == {"y"}
    refuses(lambda: read_arrays(table, (X, Y), ["x", "y"]), "is the input x: f32[B, 2]", "how: name its columns x[0], x[1]; the file has a, b, y")
    wide = (declared("x", f32, "B", 64), declared("z", f32, "B", "T"), declared("w", f32, "B", 1), Y)
    refuses(lambda: read_arrays(table, wide, ["x", "z", "w"]), "name its columns x[0], x[1], …, x[63], z[0], z[1], …, w; the file")


def test_a_column_of_another_input_is_not_taken_for_one_misspelt(tmp_path):
    one, two = declared("x", f32, "B", 2), declared("x1", f32, "B")
    assert set(csv(tmp_path, "x1\n5\n", one, two)) == {"x1"}


def test_npz_and_json(tmp_path):
    np.savez(tmp_path / "d.npz", **rows(3))
    assert set(read_arrays(tmp_path / "d.npz", (X, Y))) == {"x", "y"}
    got = read_arrays(write(tmp_path, '{"x": [[1, 2]], "y": [0.5]}', "d.json"), (X, Y))
    assert got["x"].tolist() == [[1, 2]] and got["y"].tolist() == [0.5]      # and not cut to 0


def test_files_that_cannot_be_read(tmp_path):
    for name, text in {"d.npz": "PK no", "d.json": "[1]", "e.json": "{", "d.txt": "x"}.items():
        refuses(lambda name=name, text=text: read_arrays(write(tmp_path, text, name), (X, Y)), name)
    np.save(tmp_path / "one.npz.npy", np.zeros(3))
    (tmp_path / "one.npz.npy").rename(tmp_path / "one.npz")
    refuses(lambda: read_arrays(tmp_path / "one.npz", (X, Y)), "one.npz", "savez")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    refuses(lambda: read_arrays(tmp_path / "objects.npz", (X, Y)), "objects.npz")
    for name in ("absent.npz", "absent.csv", "absent.json"):
        refuses(lambda name=name: read_arrays(tmp_path / name, (X, Y)), name)
