"""All mixers by name."""

import dataclasses
import difflib
import importlib

from mixers.mixer import Metadata

_MIXERS = {}


def register(name, *, paper, year, arxiv, ranks, causal, cost, recurrent=False, grid_tied=False):
    """Class decorator: enter a mixer under its name, with what the tables say of it."""

    def enter(cls):
        # a zoo family is a module, or a package of modules
        family = cls.__module__.removeprefix("mixers.zoo.").partition(".")[0]
        cls.metadata = Metadata(
            name, family, paper, year, arxiv, tuple(ranks), causal, recurrent, grid_tied, cost
        )
        _MIXERS[name] = cls
        return cls

    return enter


def create(name, **config):
    """Make a mixer.

    Parameters
    ----------
    name : str
        One of :func:`list_mixers`.
    **config
        ``dim``, then ``grid`` where parameters depend on the resolution, then the paper's own options;
        see the class in :mod:`mixers.zoo`.

    Returns
    -------
    Mixer

    Raises
    ------
    ValueError
        If there is no such mixer or an option has a bad value.
    TypeError
        If an option is unknown or missing.

    Examples
    --------
    >>> create("pool", dim=8, pool_size=5)
    Pool(dim=8, pool_size=5)
    """
    cls = _find(name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    surplus = [n for n in config if n not in fields]
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in config]
    if surplus or missing:
        what = f"has no option {surplus[0]!r}" if surplus else f"{', '.join(missing)} must be given"
        raise TypeError(f"{name}: {what}; its options are {', '.join(fields)}")
    return cls(**config)


def describe(name):
    """The registry's :class:`mixers.mixer.Metadata` of a mixer."""
    return _find(name).metadata


def mixer_class(name):
    """The dataclass of a mixer."""
    return _find(name)


def list_mixers(family=None, *, rank=None, causal=None, recurrent=None, grid_tied=None):
    """Names of the mixers, sorted; each argument that is given filters.

    Parameters
    ----------
    family : str, optional
        As the modules of :mod:`mixers.zoo`: "mlp", "ssm", ...
    rank : int, optional
        1 for sequences (b, l, c), 2 for images (b, h, w, c).
    causal, recurrent, grid_tied : bool, optional

    Examples
    --------
    >>> "mamba" in list_mixers(causal=True)
    True
    """
    importlib.import_module("mixers.zoo")
    wanted = {"family": family, "causal": causal, "recurrent": recurrent, "grid_tied": grid_tied}
    wanted = {k: v for k, v in wanted.items() if v is not None}
    return sorted(
        name
        for name, cls in _MIXERS.items()
        if all(getattr(cls.metadata, k) == v for k, v in wanted.items())
        and (rank is None or rank in cls.metadata.ranks)
    )


def _find(name):
    importlib.import_module("mixers.zoo")
    if name not in _MIXERS:
        near = difflib.get_close_matches(str(name), _MIXERS, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; mixers.list_mixers() names all"
        raise ValueError(f"create: there is no mixer {name!r}{hint}")
    return _MIXERS[name]
