"""Other libraries' ways to compute our ops and mixers, for ``mixers bench --against``.

Each module has ``INSTALL``, what pip calls it, and ``contenders(subject, backend, backward, threads)``, which
imports the library and returns what it can do of the subject (perhaps nothing). They get their inputs in the
layout that suits them, made ahead of the timing.
"""
