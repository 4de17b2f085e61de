"""What the mixers share that go on token by token."""

import numpy

from mixers.mixer import Mixer, as_dtype
from mixers.sequences import on_device


class RecurrentMixer(Mixer):
    """A mixer with a state: a NamedTuple, `_state_type`, of arrays whose shapes without the batch are `_state_shapes`.

    `_advance(p, x, state)` is one token (b, c): the output and the new state.
    """

    def initial_state(self, batch, dtype="float32", params=None):
        """The state before the first token.

        Parameters
        ----------
        batch : int
        dtype : dtype
        params : dict, optional
            The state is then of their array type (CuPy for CuPy), and what they say it is where a mixer learns it.

        Returns
        -------
        NamedTuple of array
            Zeros otherwise.
        """
        zeros = (numpy.zeros((batch, *shape), as_dtype(dtype)) for shape in self._state_shapes)
        if params is not None:
            zeros = (on_device(array, next(iter(params.values()))) for array in zeros)
        return self._state_type(*zeros)

    def step(self, params, x, state):
        """One token.

        Parameters
        ----------
        params : dict
        x : array (b, c)
        state : NamedTuple of array
            Of the tokens before; from :meth:`initial_state`, an earlier step or a call with `return_state`.

        Returns
        -------
        y : array (b, c)
        state : NamedTuple of array
            A new one, float32 (float64 for float64 x).

        Raises
        ------
        ValueError
            If a shape disagrees.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(
                f"{self.name}: x must have shape (b, c) with c = {self.dim}, got {tuple(x.shape)}"
            )
        self._check_call(params, (x[:, None],), {})
        return self._advance(self._params(params, training=False), x, state)
