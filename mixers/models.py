"""Small models around any mixer: what ``mixers train`` trains."""

import math
from dataclasses import dataclass

import numpy

from mixers import _checks as check
from mixers import initializers, ops
from mixers.mixer import Mixer, Parameter, Params, required_inputs


@dataclass(frozen=True)
class MetaFormer(Mixer):
    """Patch embedding, blocks of token mixer and channel MLP, mean over the tokens, linear head.

    With n a layer norm: x = patches w + b + positions; in every block x = x + mixer(n(x)), then
    x = x + w_out gelu(w_in n(x) + b_in) + b_out; logits = n(mean over tokens of x) w + b.

    Parameters
    ----------
    mixer : Mixer
        The token mixer of every block; its ``dim`` is the width of the model.
    depth : int
        Number of blocks, each with its own parameters.
    image : tuple of int
        Height and width of the images, multiples of patch.
    channels : int
        Channels of the images.
    patch : int
        Side of the square patches: there are (h / patch) (w / patch) tokens.
    classes : int
    expansion : int
        Width of the channel MLP relative to dim.

    Raises
    ------
    ValueError
        If a number is < 1, patch does not divide the image, or the mixer is made for another grid.
    TypeError
        If mixer is no Mixer.

    Notes
    -----
    x is (b, h, w, channels), the output (b, classes). A mixer of images gets the tokens as a grid, one of
    sequences gets them row by row. The parameters of the mixer in block i are named ``blocks.i.mixer.<name>``.
    The table ``positions`` (one row per token) tells tokens apart for the mixers that do not do so by themselves.
    Source: Yu et al. 2022, arXiv:2111.11418, section 3.1.

    Examples
    --------
    >>> import numpy, mixers
    >>> model = MetaFormer(mixers.create("pool", dim=8), depth=2, image=(8, 8), patch=2)
    >>> params = model.init(0)
    >>> logits, saved = model.forward(params, numpy.zeros((3, 8, 8, 1), "float32"))
    >>> logits.shape, params["blocks.1.mlp.w_in"].shape
    ((3, 10), (8, 32))
    """

    mixer: Mixer
    depth: int = 2
    image: tuple = (8, 8)
    channels: int = 1
    patch: int = 1
    classes: int = 10
    expansion: int = 4

    def __post_init__(self):
        if not isinstance(self.mixer, Mixer):
            raise TypeError(f"{self.name}: mixer must be a Mixer, got {type(self.mixer).__name__}")
        if not hasattr(self.mixer, "dim") or len(required_inputs(type(self.mixer))) != 1:
            raise ValueError(
                f"{self.name}: mixer must map one x of dim channels to another, got {self.mixer}"
            )
        object.__setattr__(self, "image", check.grid(self.name, self.image, name="image", ranks=(2,)))
        for field in ("depth", "channels", "patch", "classes", "expansion"):
            check.integer(self.name, field, getattr(self, field), minimum=1)
        for side in self.image:
            check.divides(self.name, "patch", self.patch, "the sides of image", side)
        if getattr(self.mixer, "grid", None) is not None and not self.mixer.accepts_grid(self.grid):
            raise ValueError(
                f"{self.name}: mixer must be made for the token grid {self.grid}, got {self.mixer.grid}"
            )

    @property
    def dim(self):
        """Width of the model."""
        return self.mixer.dim

    @property
    def grid(self):
        """Token grid as the mixer gets it: (h, w) for a mixer of images, (h w,) for one of sequences."""
        grid = tuple(side // self.patch for side in self.image)
        ranks = self.mixer.metadata.ranks if self.mixer.metadata else (1, 2)
        return grid if 2 in ranks else (math.prod(grid),)

    def check_input(self, x):
        """Check that x is (b, *image, channels)."""
        h, w = self.image
        check.shape(self.name, "x", x, b=None, h=h, w=w, c=self.channels)

    def parameters(self):
        dim, hidden = self.dim, self.dim * self.expansion
        specs = {
            **_linear("embedding", self.channels * self.patch**2, dim),
            "positions": Parameter((math.prod(self.grid), dim), initializers.truncated_normal(0.02)),
        }
        for i in range(self.depth):
            block = f"blocks.{i}"
            specs |= _norm(f"{block}.norm_mixer", dim)
            specs |= {f"{block}.mixer.{n}": spec for n, spec in self.mixer.parameters().items()}
            specs |= _norm(f"{block}.norm_mlp", dim)
            specs |= _linear(f"{block}.mlp", dim, hidden, "_in") | _linear(
                f"{block}.mlp", hidden, dim, "_out"
            )
        return specs | _norm("head.norm", dim) | _linear("head", dim, self.classes)

    def mix(self, p, x):
        x = self.embed(p, x)
        for i in range(self.depth):
            block = _part(p, f"blocks.{i}.")
            inner = _part(block, "mixer.")
            x = x + self.mixer.mix(inner, self.mixer_input(block, x)).reshape(x.shape)
            p.updates.update({f"blocks.{i}.mixer.{n}": value for n, value in inner.updates.items()})
            y = _normalise(block, "norm_mlp", x)
            hidden = ops.gelu(ops.linear(y, block["mlp.w_in"], block["mlp.b_in"]))
            x = x + ops.linear(hidden, block["mlp.w_out"], block["mlp.b_out"])
        return ops.linear(_normalise(p, "head.norm", x.mean(axis=1)), p["head.w"], p["head.b"])

    def embed(self, p, x):
        """Images (b, h, w, channels) to tokens (b, n, dim)."""
        q = self.patch
        h, w = self.image[0] // q, self.image[1] // q
        cut = x.reshape(x.shape[0], h, q, w, q, self.channels).transpose(0, 1, 3, 2, 4, 5)
        patches = cut.reshape(x.shape[0], h * w, q * q * self.channels)
        return ops.linear(patches, p["embedding.w"], p["embedding.b"]) + p["positions"]

    def mixer_input(self, block, x):
        """What the mixer of a block with these parameters gets from the tokens (b, n, dim)."""
        return _normalise(block, "norm_mixer", x).reshape(x.shape[0], *self.grid, self.dim)


@dataclass(frozen=True)
class SequenceModel(Mixer):
    """Tokens of a vocabulary to logits at every place: embedding, a mixer in each block, a head tied to the embedding.

    With n a layer norm: x = one_hot embedding; in every block x = x + mixer(n(x)); logits = n(x) embedding^T.

    Parameters
    ----------
    mixers : tuple of Mixer
        The token mixer of each block, all of one ``dim``, for sequences.
    vocabulary : int
        Number of tokens v.

    Raises
    ------
    ValueError
        If a number is < 1, or the mixers are not for sequences of one width.
    TypeError
        If mixers holds something else.

    Notes
    -----
    x is (b, l, v): rows with a single 1, see :func:`one_hot`. The output is (b, l, v). Blocks have no other part than
    the mixer, and nothing tells the places apart but the mixers. The parameters of the mixer in block i are named
    ``blocks.i.mixer.<name>``.
    Source: Arora et al. 2023, arXiv:2312.04927, appendix E.

    Examples
    --------
    >>> import numpy, mixers
    >>> model = SequenceModel((mixers.create("hyena", dim=8, grid=(6,)),), vocabulary=20)
    >>> model(model.init(0), one_hot(numpy.ones((3, 6), int), 20)).shape
    (3, 6, 20)
    """

    mixers: tuple
    vocabulary: int

    def __post_init__(self):
        if not all(isinstance(mixer, Mixer) for mixer in self.mixers):
            raise TypeError(f"{self.name}: mixers must be Mixers, got {self.mixers}")
        if not self.mixers:
            raise ValueError(f"{self.name}: mixers must hold at least one, got none")
        check.integer(self.name, "vocabulary", self.vocabulary, minimum=1)
        for mixer in self.mixers:
            if 1 not in mixer.metadata.ranks or getattr(mixer, "dim", None) != self.dim:
                raise ValueError(f"{self.name}: mixers must be for sequences and of one width, got {mixer}")

    @property
    def dim(self):
        """Width of the model."""
        return getattr(self.mixers[0], "dim", None)

    def check_input(self, x):
        """Check that x is (b, l, vocabulary)."""
        check.shape(self.name, "x", x, b=None, l=None, v=self.vocabulary)

    def parameters(self):
        law = initializers.truncated_normal(0.02)
        specs = {"embedding": Parameter((self.vocabulary, self.dim), law)}
        for i, mixer in enumerate(self.mixers):
            specs |= _norm(f"blocks.{i}.norm_mixer", self.dim)
            specs |= {f"blocks.{i}.mixer.{n}": spec for n, spec in mixer.parameters().items()}
        return specs | _norm("head.norm", self.dim)

    def mix(self, p, x):
        x = ops.linear(x, p.embedding)
        for i, mixer in enumerate(self.mixers):
            block = _part(p, f"blocks.{i}.")
            inner = _part(block, "mixer.")
            x = x + mixer.mix(inner, _normalise(block, "norm_mixer", x))
            p.updates.update({f"blocks.{i}.mixer.{n}": value for n, value in inner.updates.items()})
        return ops.linear(_normalise(p, "head.norm", x), p.embedding.transpose())

    def initial_state(self, batch, dtype="float32", params=None):
        """The states of all blocks before the first token, for mixers that have one; see their initial_state."""
        of = lambda i: None if params is None else _part(Params(params), f"blocks.{i}.mixer.")
        return tuple(mixer.initial_state(batch, dtype, of(i)) for i, mixer in enumerate(self.mixers))

    def step(self, params, x, state):
        """One token (b, v) and the states in, its logits (b, v) and the new states out."""
        p, states = Params(params), []
        x = ops.linear(x, p.embedding)
        for i, mixer in enumerate(self.mixers):
            block = _part(p, f"blocks.{i}.")
            y, after = mixer.step(_part(block, "mixer."), _normalise(block, "norm_mixer", x), state[i])
            x = x + y
            states.append(after)
        return ops.linear(_normalise(p, "head.norm", x), p.embedding.transpose()), tuple(states)


def one_hot(tokens, vocabulary):
    """Rows with a single 1, (..., vocabulary) float32, for an array of integers.

    >>> import numpy
    >>> one_hot(numpy.array([1]), 3)
    array([[0., 1., 0.]], dtype=float32)
    """
    rows = numpy.zeros((tokens.size, vocabulary), numpy.float32)
    rows[numpy.arange(tokens.size), tokens.reshape(-1)] = 1.0
    return rows.reshape(*tokens.shape, vocabulary)


def _part(p, prefix):
    """The parameters whose names begin with a prefix, without it, and with the same training switch."""
    found = Params({name[len(prefix) :]: value for name, value in p.items() if name.startswith(prefix)})
    found.training, found.updates = p.training, {}
    return found


def _linear(name, fan_in, fan_out, suffix=""):
    return {
        f"{name}.w{suffix}": Parameter((fan_in, fan_out), initializers.fan_in_uniform(fan_in)),
        f"{name}.b{suffix}": Parameter((fan_out,), initializers.zeros),
    }


def _norm(name, dim):
    return {
        f"{name}.scale": Parameter((dim,), initializers.ones),
        f"{name}.bias": Parameter((dim,), initializers.zeros),
    }


def _normalise(p, name, x):
    return ops.layer_norm(x, p[f"{name}.scale"], p[f"{name}.bias"])
