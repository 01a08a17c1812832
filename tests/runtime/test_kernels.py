"""Kernels by structure: equal but for names and comments, and only then."""
from __future__ import annotations

import pytest

from graphc.runtime.kernels import canonical_of, outline, split

TEXT = '''
def relu_2({a}, {b}, n):
    """h = relu(z): {a} and {b}.

    {b}: f32, written
    """
    # {b}[i] = relu({a}[i])    f32[B, 3]   net.py:7
    for i0 in range(n):
        v0 = fmax({a}[i0], f32(1e999))
        {b}[i0] = v0
'''.lstrip()
SIGNATURE = ("f32*", "f32*", "i64")


def test_names_docstring_and_comments_are_no_part_of_a_structure():
    one, other = TEXT.format(a="z", b="h"), TEXT.format(a="h", b="β").replace("def relu_2", "def other")
    assert outline(one, SIGNATURE) == outline(other, SIGNATURE)
    assert canonical_of(one, SIGNATURE) == canonical_of(other, SIGNATURE)


CHANGES = {"another word": ("fmax", "fmin"), "another number": ("1e999", "1.5"), "another range": ("range(n)", "range(1, n)"),
           "swapped arrays": ("fmax(z", "fmax(h"), "another local": ("= v0", "= -v0")}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_computed_is(name):
    text = TEXT.format(a="z", b="h")
    changed = text.replace(*CHANGES[name])
    assert changed != text
    assert outline(text, SIGNATURE) != outline(changed, SIGNATURE)
    assert canonical_of(text, SIGNATURE) != canonical_of(changed, SIGNATURE)


def test_attributes_and_exponents_keep_their_names():
    text = "def k(x, e5, blockIdx):\n    x[cuda.blockIdx.x] = e5[0] * f32(1e5)\n"
    assert "a0[cuda.blockIdx.x] = a1[0] * f32(1e5)" in outline(text, ("f32*", "f32*", "i64"))


def test_no_parameters_and_no_docstring():
    assert outline("def k():\n    pass\n", ()) == "def kernel():\n    pass\n"


def test_the_text_of_a_folder_gives_the_same_kernels():
    text = TEXT.format(a="z", b="h")
    assert split(f'"""A header."""\n\n{text}', {"relu_2": SIGNATURE}) == {"relu_2": canonical_of(text, SIGNATURE)}
    assert "def kernel_" in canonical_of(text, SIGNATURE).source
