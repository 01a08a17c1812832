"""An input that lies in memory which the call writes is copied; one that lies between two such arrays is not."""
import numpy as np
import pytest

from graphc.runtime.call import Binding

BLOCK = np.zeros(40)
WRITTEN = [BLOCK[30:], BLOCK[:10], BLOCK[10:15], BLOCK[20:20]]


@pytest.mark.parametrize("begin, end, overlaps", [
    (0, 1, True), (9, 11, True), (14, 16, True), (15, 30, False), (15, 31, True), (29, 31, True), (16, 18, False),
    (39, 40, True), (0, 40, True), (17, 17, False)])
def test_only_what_is_written_overlaps(begin, end, overlaps):
    assert Binding(None, [], [], WRITTEN)._overlaps(BLOCK[begin:end]) is overlaps


def test_a_call_that_writes_nothing_overlaps_nothing():
    assert not Binding(None, [], [], [])._overlaps(BLOCK)
