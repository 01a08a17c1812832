"""Code generation: Kernel IR to source text, and the words that the text may use."""
