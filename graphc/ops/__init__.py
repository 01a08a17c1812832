"""The row table: every operation, stated once. `ops.table.ROWS` has them all; `ops.build.make` makes nodes."""
