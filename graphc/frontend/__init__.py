"""The DSL: what a model file writes. `graphc.*` offers these names."""
