"""A model's gradient as a derivation that can be followed step by step, in Markdown, HTML, LaTeX or plain text."""
