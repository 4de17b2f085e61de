"""Timing of ops and mixers against other libraries: what ``mixers bench`` runs.

timing     calls that take turns, medians and spreads
contender  what is timed: forward, backward and both, of us and of a peer
peers      one file per other library; none of them is needed to install or import this package
"""
