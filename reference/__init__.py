"""The definitions: plain NumPy, forward and hand-derived backward, readable before fast.

Each ``<op>_forward(..., save=True)`` returns ``(output, intermediates)``, each ``<op>_backward(dout, saved)`` one
gradient per array argument. This is the oracle that the other backends are held against.
"""
