"""Matrix products: the kernels, and the choice among their ways by size.

C (m, n) = or += op(A) (m, k) @ op(B) (k, n), row-major, is computed panel by panel: a panel is some columns of B over a
block of the inner axis, small enough for the nearest cache, and every tile of rows of A runs over it. Operands are used
where they lie if that is cheap, and packed into the order in which tiles read them if it is not. A product by a vector
is left to OpenBLAS, whose routines for it are as fast as memory.

For several threads C is cut into blocks, several for each thread, which they take one by one: a slow thread holds the
others up by one block. Each block packs what it needs. To pack B once for all would cost more: what one core wrote,
another reads slowly.

`plan` says how a product of given sizes is done; the constants were measured on processors with AVX-512.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen import tiles
from graphc.codegen.host import vector_bytes
from graphc.runtime.cache import KernelSource

INNER = 256    # steps of the inner axis in a block: a panel of them is two thirds of the nearest cache
ROWS = 512     # rows of A in a block: with INNER steps of it, half of the second cache
MANY_TILES = 16  # tiles over one panel from which on it pays that the first packs it for the others
FEW_TILES = 3    # the same where the vectors of B lie across cache lines
MANY_PANELS = 8  # over a block of A from which on it pays to pack it
FEW_SETS_ROWS = 256  # of A, that stay in the second cache even where they fall on few of its sets
LEAST_TILES, LEAST_PANELS = 4, 2  # of a block of C: what comes from far caches is used so often at least
MOST_TURNED = 64  # rows of a C that is computed transposed; more pay for a B that is packed
BLOCK_AFTER = 1 << 32  # times the block after the last that is left; see the kernel
GROUP = 4        # tiles whose rows of a transposed A are packed together, so that whole cache lines are read

# the bits of `how`
TRANSPOSED_A, TRANSPOSED_B, ACCUMULATE, PACK_A, PACK_B, PACKED_B, USE_BLAS = (1 << i for i in range(7))


# ------------------------------------------------------------------------------------------------------------ kernels

_GEMM = '''
def gemm_{t}(a, b, c, work, left, m, n, k, lda, ldb, ldc, how, high, wide, begin, end):
    """Blocks of C = or += op(A) @ op(B), which is cut into blocks of `high` rows and `wide` columns.

    left: the blocks that nobody has taken: the first, and, times 2**32, the one after the last. All who are given the
    same take from there until there are none, who is even (`begin`) from the front, who is odd from the back; so in one
    run after the other each mostly has the same, and finds in its caches what it needs. Null: all blocks are one.
    """
    first_row = 0
    first_column = 0
    across = 1
    if address(left) != 0:
        across = (n + wide - 1) // wide
    while begin < end:
        if address(left) != 0:
            if begin & 1:
                range_left = atomic_add(left, 0, -{BLOCK_AFTER})
                taken = (range_left >> 32) - 1
            else:
                range_left = atomic_add(left, 0, 1)
                taken = range_left & {block_bits}
            if (range_left & {block_bits}) >= (range_left >> 32):
                break
            first_row = taken // across * high
            first_column = taken % across * wide
        last_row = fmin(m, first_row + high)
        last_column = fmin(n, first_column + wide)
        row_a = lda
        step_a = 1
        if how & {TRANSPOSED_A}:
            row_a = 1
            step_a = lda
        rows = last_row - first_row
        pack_a = how & {PACK_A}
        pack_b = how & {PACK_B}
        if rows >= {FEW_TILES} * {H} and (address(b) | (ldb * {itemsize})) & ({vector} - 1):
            pack_b = 1  # vectors of B that lie across cache lines are read once and packed, not once for every tile
        add = how & {ACCUMULATE}
        if k == 0 and add == 0:
            i = first_row
            while i < last_row:
                for j in range(first_column, last_column):
                    c[i * ldc + j] = {t}(0)
                i += 1
        inner = k  # small products spare the divisions
        if k > {INNER}:
            blocks = (k + {INNER} - 1) // {INNER}
            inner = (k + blocks - 1) // blocks
        block = rows
        if rows > {ROWS}:
            blocks = (rows + {ROWS} - 1) // {ROWS}
            block = ((rows + blocks - 1) // blocks + {H} - 1) // {H} * {H}
        p = 0
        while p < k:
            steps = fmin(inner, k - p)
            i = first_row
            while i < last_row:
                height = fmin(block, last_row - i)
                count = (height + {H} - 1) // {H}
                low = height
                higher = 0
                if count > 1:
                    low = height // count
                    higher = height - low * count
                own = at(a, i * row_a + p * step_a)  # this block of A; its row r begins at r * own_row
                a_row = row_a
                a_step = step_a
                own_row = row_a
                if pack_a:
                    source = own
                    own = at(work, {panel_room})
                    low = {H}
                    higher = 0
                    own_row = steps
                    if how & {TRANSPOSED_A}:
                        a_step = {H}
                        q = 0
                        while q + {GROUP} * {H} <= height:
                            to = at(own, q * steps)
                            y = 0
                            while y < steps:
                                row = at(source, y * lda + q)
                                for g in range({GROUP}):
                                    for x in range({H}):
                                        to[g * {H} * steps + x] = row[g * {H} + x]
                                to = at(to, {H})
                                y += 1
                            q += {GROUP} * {H}
                        while q < height:
                            to = at(own, q * steps)
                            y = 0
                            while y < steps:
                                row = at(source, y * lda + q)
                                if height - q >= {H}:
                                    for x in range({H}):
                                        to[x] = row[x]
                                else:
                                    for x in range(height - q):
                                        to[x] = row[x]
                                to = at(to, {H})
                                y += 1
                            q += {H}
                    else:
                        a_row = steps
                        q = 0
                        while q < height:
                            to = at(own, q * steps)
                            row = at(source, q * lda)
                            for y in range(steps):
                                to[y] = row[y]
                            q += 1
                j = first_column
                if height <= {SLIM_ROWS} and (how & ({TRANSPOSED_B} | {PACKED_B})) == 0:
                    while j + {slim} <= last_column:
                        slim(height, own, a_row, a_step, at(b, p * ldb + j), ldb, steps, at(c, i * ldc + j), ldc, add)
                        j += {slim}
                while j < last_column:
                    columns = fmin({W}, last_column - j)
                    panel = at(b, p * ldb + j)
                    b_step = ldb
                    r = 0
                    q = 0
                    if {widest} and last_column - j > {W} and last_column - j <= {W} + {L} and low >= {widest} and pack_a == 0 and (
                            how & ({PACKED_B} | {TRANSPOSED_B} | {PACK_B})) == 0:
                        columns = last_column - j  # the rest in one tile: few columns on their own would cost as many
                    elif how & {PACKED_B}:
                        panel = at(b, j * k + p * {W})
                        b_step = {W}
                    elif how & {TRANSPOSED_B}:
                        pack_transposed(at(b, j * ldb + p), ldb, steps, columns, work)
                        panel = work
                        b_step = {W}
                    elif pack_b and columns > {L} and height >= {H} and (low == {H} or higher > 0 and low == {H} - 1):
                        tile_packing(columns, own, a_row, a_step, panel, ldb, steps, at(c, i * ldc + j), ldc, add, work)
                        panel = work
                        b_step = {W}
                        r = {H}
                        q = 1
                    while q < count:
                        tile_rows = fmin(low, height - r)
                        if q < higher:
                            tile_rows += 1
                        tile(tile_rows, columns, at(own, r * own_row), a_row, a_step, panel, b_step, steps,
                             at(c, (i + r) * ldc + j), ldc, add)
                        r += tile_rows
                        q += 1
                    j += fmax({W}, columns)
                i += block
            add = {ACCUMULATE}
            p += inner
        if address(left) == 0:
            break
'''

_BLAS = '''
def blas_{t}(a, b, c, routines, unused, m, n, k, lda, ldb, ldc, how, high, wide, begin, end):
    """The blocks from `begin` to `end`, by OpenBLAS; `routines` are the addresses of its gemm and gemv. k is not 0."""
    gemm = routines[0]
    gemv = routines[1]
    trans_a = how & {TRANSPOSED_A} != 0
    trans_b = how & {TRANSPOSED_B} != 0
    keep = select(how & {ACCUMULATE} != 0, {t}(1), {t}(0))
    across = 1
    if m == 0 or n == 0:
        end = begin  # OpenBLAS complains of a matrix of nothing
    else:
        across = (n + wide - 1) // wide
    for number in range(begin, end):
        i = number // across * high
        j = number % across * wide
        rows = fmin(high, m - i)
        columns = fmin(wide, n - j)
        left = at(a, i * select(trans_a, 1, lda))
        right = at(b, j * select(trans_b, ldb, 1))
        out = at(c, i * ldc + j)
        if columns == 1:
            ccall(gemv, i32(101), i32(select(trans_a, 112, 111)), i32(select(trans_a, k, rows)),
                  i32(select(trans_a, rows, k)), {t}(1), left, i32(lda), right, i32(select(trans_b, 1, ldb)), keep, out,
                  i32(ldc))
        elif rows == 1:
            ccall(gemv, i32(101), i32(select(trans_b, 111, 112)), i32(select(trans_b, columns, k)),
                  i32(select(trans_b, k, columns)), {t}(1), right, i32(ldb), left, i32(select(trans_a, lda, 1)), keep,
                  out, i32(1))
        else:
            ccall(gemm, i32(101), i32(select(trans_a, 112, 111)), i32(select(trans_b, 112, 111)), i32(rows),
                  i32(columns), i32(k), {t}(1), left, i32(lda), right, i32(ldb), keep, out, i32(ldc))
'''

_BATCH = '''
def batch_{t}(a, b, c, work, m, n, k, lda, ldb, ldc, how, stride_a, stride_b, stride_c, one, begin, end):
    """The products from `begin` to `end` of a batch, each a block, stride_* elements apart; `one` is the address of one's
    kernel."""
    arguments = scratch()
    arguments[3] = address(work)
    arguments[4] = 0
    arguments[5] = m
    arguments[6] = n
    arguments[7] = k
    arguments[8] = lda
    arguments[9] = ldb
    arguments[10] = ldc
    arguments[11] = how
    arguments[12] = m
    arguments[13] = n
    arguments[14] = 0
    arguments[15] = 1
    for i in range(begin, end):
        arguments[0] = address(at(a, i * stride_a))
        arguments[1] = address(at(b, i * stride_b))
        arguments[2] = address(at(c, i * stride_c))
        call(one, arguments)
'''

_PACK = '''
def pack_{t}(b, out, n, k, ldb, trans_b):
    """All panels of op(B) (k, n), one after another: what a product with PACKED_B reads."""
    for j in range(0, n, {W}):
        wide = select(n - j < {W}, n - j, {W})
        panel = at(out, j * k)
        if trans_b != 0:
            pack_transposed(at(b, j * ldb), ldb, k, wide, panel)
        else:
            for p in range(k):
                row = at(b, p * ldb + j)
                to = at(panel, p * {W})
                if wide == {W}:
                    for x in range({W}):
                        to[x] = row[x]
                else:
                    for x in range({W}):
                        to[x] = {t}(0)
                    for x in range(wide):
                        to[x] = row[x]
'''


_TURN = '''
def turn_{t}(turned, c, work, m, n, ldc):
    """C (m, n) from its transpose, whose rows lie next to each other. `work` is a panel of m steps."""
    for j in range(0, n, {W}):
        columns = fmin({W}, n - j)
        pack_transposed(at(turned, j * m), m, m, columns, work)
        for i in range(m):
            row = at(work, i * {W})
            to = at(c, i * ldc + j)
            if columns == {W}:
                for x in range({W}):
                    to[x] = row[x]
            else:
                for x in range(columns):
                    to[x] = row[x]
'''


def _words(t: str) -> dict[str, object]:
    """What the texts above depend on besides their sizes."""
    wide = tiles.lanes(ITEMSIZE[t])
    return {
        "t": t, "L": wide, "W": tiles.VECTORS * wide, "H": tiles.most_rows(), "INNER": INNER, "ROWS": ROWS,
        "SLIM_ROWS": tiles.SLIM_ROWS, "slim": tiles.SLIM_VECTORS * wide, "panel_room": panel_room(t),
        "itemsize": ITEMSIZE[t], "widest": min(tiles.widest_rows(), default=0),
        "BLOCK_AFTER": BLOCK_AFTER, "block_bits": BLOCK_AFTER - 1, "vector": vector_bytes(), "FEW_TILES": FEW_TILES,
        "GROUP": GROUP,
        "TRANSPOSED_A": TRANSPOSED_A, "TRANSPOSED_B": TRANSPOSED_B, "ACCUMULATE": ACCUMULATE, "PACK_A": PACK_A,
        "PACK_B": PACK_B, "PACKED_B": PACKED_B, "USE_BLAS": USE_BLAS,
    }


ITEMSIZE = {"f32": 4, "f64": 8}


def sources() -> list[KernelSource]:
    """The kernels of matrix products."""
    found = []
    for t in ITEMSIZE:
        words = _words(t)
        pointers = (f"{t}*",) * 4
        found += [
            KernelSource(f"gemm_{t}", _GEMM.format(**words), (*pointers, "i64*") + ("i64",) * 11),
            KernelSource(f"blas_{t}", _BLAS.format(**words), (*pointers[:3], "i64*", "i64*") + ("i64",) * 11),
            KernelSource(f"batch_{t}", _BATCH.format(**words), pointers + ("i64",) * 13),
            KernelSource(f"pack_{t}", _PACK.format(**words), (f"{t}*",) * 2 + ("i64",) * 4),
            KernelSource(f"turn_{t}", _TURN.format(**words), (f"{t}*",) * 3 + ("i64",) * 3),
        ]
    return found


def panel_room(t: str) -> int:
    """The elements of a panel of a block, its steps rounded up to a vector's lanes."""
    return (INNER + tiles.lanes(ITEMSIZE[t])) * tiles.VECTORS * tiles.lanes(ITEMSIZE[t])


def packed_size(t: str, n: int, k: int) -> int:
    """The elements of a packed (k, n), with what `pack_transposed` writes beyond its last panel."""
    wide = tiles.lanes(ITEMSIZE[t])
    panel = tiles.VECTORS * wide
    return (-(-n // panel) * k + wide) * panel


# ------------------------------------------------------------------------------------------------------------- choice

@dataclass(frozen=True)
class Plan:
    """How a product is done: the bits for the kernel, the blocks that C is cut into, and the bytes of `work` for a part.

    Blocks have `high` rows and `wide` columns, less at the edges; there are `blocks` of them, row after row.
    """

    how: int
    high: int
    wide: int
    blocks: int
    work: int


def plan(t: str, m: int, n: int, k: int, lda: int, ldb: int, trans_a: bool, trans_b: bool, accumulate: bool,
         packed_b: bool = False, threads: int = 1, blocks: int = 1) -> Plan:
    """The cheapest way for given sizes, by a model of a few measured rules.

    - A vector times a matrix, and few rows times a transposed matrix, are bound by memory: OpenBLAS.
    - B is packed by the first of many tiles that run over a panel; a transposed one always.
    - A is packed where a block of it would fall on few sets of the second cache (its rows a multiple of 2 KiB apart),
      or where it is transposed with many steps, each on a page of its own; but only for many columns, which pay for it.
    - For several threads C is cut into about as many `blocks` as are asked for. They are as high as pays, since each row
      of blocks packs B again; but no higher than that A need not be packed. Where it must be, each column of blocks packs
      it again, so there are half as many.
    """
    itemsize = ITEMSIZE[t]
    height, panel = tiles.most_rows(), tiles.VECTORS * tiles.lanes(itemsize)
    how = TRANSPOSED_A * trans_a | TRANSPOSED_B * trans_b | ACCUMULATE * accumulate | PACKED_B * packed_b
    if k and not packed_b and (n == 1 or trans_b and m < tiles.SLIM_ROWS or m == 1 and k * n > 1 << 14):
        by_columns = n > 1 and m < height * threads
        high, wide = (m, _share(n, panel, threads)) if by_columns else (_share(m, height, threads), n)
        return Plan(how | USE_BLAS, *_cut(m, n, high, wide), 0)
    far = lda * itemsize
    few_sets = not trans_a and far % 2048 == 0
    many_pages = trans_a and min(k, INNER) * far > 1 << 18
    high, wide = m, n
    least = MANY_PANELS * panel if many_pages and k > 64 and n >= MANY_PANELS * panel else LEAST_PANELS * panel
    if threads > 1:
        if least > LEAST_PANELS * panel:
            blocks = max(threads, blocks // 2)
        rows = -(-m // (FEW_SETS_ROWS if few_sets else ROWS))
        wide = min(n, max(_share(n, panel, -(-blocks // rows)), least))
        rows = max(rows, min(-(-blocks // -(-n // wide)), -(-m // (LEAST_TILES * height)))) if wide else 1
        high = _share(m, height, rows)
    if wide >= MANY_PANELS * panel and high >= 4 * height and k > 64 and (many_pages or few_sets and high > FEW_SETS_ROWS):
        how |= PACK_A
    if not packed_b and not trans_b and high >= MANY_TILES * height:
        how |= PACK_B
    room = panel_room(t)
    if how & PACK_A:
        room += min(-(-high // height) * height, ROWS + height) * INNER
    return Plan(how, *_cut(m, n, high, wide), room * itemsize)


def is_turned(t: str, m: int, n: int, k: int, trans_a: bool, trans_b: bool, accumulate: bool) -> bool:
    """Is the transpose of C computed, and turned?

    It is B @ A where both are transposed, and needs nothing packed. To pack B would take longer than to turn a C of few
    rows; but they are more than a vector, or the tiles of B @ A are narrow.
    """
    few = tiles.lanes(ITEMSIZE[t]) < m <= MOST_TURNED and 2 * m <= k
    return trans_a and trans_b and not accumulate and few and n >= tiles.most_rows()


def _share(extent: int, grain: int, parts: int) -> int:
    """The length of one of at most so many parts of a range: a multiple of the grain."""
    return -(-extent // (grain * max(parts, 1))) * grain


def _cut(m: int, n: int, high: int, wide: int) -> tuple[int, int, int]:
    """(rows of a block, its columns, how many there are); a matrix of nothing is one block."""
    high, wide = min(high, m) or 1, min(wide, n) or 1
    return high, wide, max(1, -(-m // high) * -(-n // wide))


def kernels_of(t: str) -> tuple[str, ...]:
    """The kernels that a product of a type may need, whatever its sizes are."""
    return f"gemm_{t}", f"blas_{t}", f"batch_{t}", f"turn_{t}"
