"""Verification: what is proved of a model, and its compiled gradients against 50-digit arithmetic.

exact        graphs evaluated with 50 digits, from the rows' mathematics
index_form   what a node is at one index, as a sum of terms over symbolic sizes
adjoints     each operation's adjoint proved against the derivative of its index form
sizes        small sizes that fit what is checked
integers     which integers the look-ups of a model allow its inputs
rewrites     each rewrite that fired, before and after
ties         kinks and equal elements, compiled by themselves
culprit      which operation, stage or kernel is wrong
model        a model's compiled values and derivatives, first and second order
certificate  the result, and its text
"""
