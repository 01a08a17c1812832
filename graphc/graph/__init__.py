"""The graph: vocabulary that every stage may import. Submodules are imported by name, so that the runtime can
take `graph.size` and `graph.dtype` without networkx."""
