"""Timing of ops and mixers against other libraries: what ``mixers bench`` runs.

timing     calls that take turns, medians and spreads
contender  what is timed: forward, backward and both, of us and of a peer
race       one comparison: times, differences, rates
ceilings   what this machine can do at best: copying, multiply-adds
memory     peak memory of a call, in a process of its own
table      the shapes and bars by which speed is judged
peers      one file per other library; none of them is needed to install or import this package
"""
