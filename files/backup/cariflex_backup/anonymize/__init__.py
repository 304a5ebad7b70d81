"""Test data without people in it: from an archive of production to one of the same shape that names nobody.

`rules` says what becomes of every column, `pseudonyms` and `documents` are how, `plan` compares the rules with a
database and writes the statements, `traces` looks for what may have been missed, `anonymizing` does it.
"""
