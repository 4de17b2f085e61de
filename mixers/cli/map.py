"""Draw how a mixer mixes tokens: the size of |dy_i / dx_j| for all pairs of tokens, and the row of the
middle token.

Parameters are as initialised, or from a file that `mixers train` wrote; x holds normal values."""

import pathlib

import numpy

from mixers import plots, samples, subjects, training
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers map mamba
  mixers map dct_mixer --shape 4,16,16,8 --out dct.svg
  mixers map hyena --weights runs/hyena.npz"""


def add_arguments(parser):
    shared.add_name(parser, "a mixer")
    parser.add_argument(
        "--shape", metavar="SHAPE", help="of x, as 4,64,16 or 4,8,8,16 (default: 4 x 64 tokens)"
    )
    parser.add_argument("--weights", metavar="FILE", help="parameters of the first block of a trained model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", metavar="FILE", help="picture to write, .png, .svg or .pdf (default: NAME_map.png)"
    )
    shared.add_config(parser)


def run(arguments):
    plots.require()
    mixer, params, x = _trained(arguments) if arguments.weights else _initialised(arguments)
    mixing = plots.token_map(mixer, params, x)
    out = pathlib.Path(arguments.out or f"{arguments.name}_map.png")
    plots.save_map(out, str(mixer), mixing, x.shape[1:-1])
    print(f"wrote {out}")


def _initialised(arguments):
    import mixers

    ranks = mixers.describe(arguments.name).ranks
    shape = subjects.parse_shape(arguments.shape).x or ((4, 8, 8, 16) if 2 in ranks else (4, 64, 16))
    config = shared.parse_config(arguments.config)
    mixer, _, inputs = samples.mixer_sample(arguments.name, seed=arguments.seed, shape=shape, **config)
    if len(inputs) > 1:
        raise ValueError(f"{arguments.name}: has several inputs; a map needs one")
    return mixer, mixer.init(arguments.seed), inputs[0]


def _trained(arguments):
    model, found = training.load(arguments.weights)
    if model.mixer.name != arguments.name:
        raise ValueError(f"{arguments.weights} holds a {model.mixer.name}, not a {arguments.name}")
    prefix = "blocks.0.mixer."
    params = {n.removeprefix(prefix): a for n, a in found.items() if n.startswith(prefix)}
    shape = (4, *model.grid, model.dim)
    return model.mixer, params, numpy.random.default_rng(arguments.seed).standard_normal(shape, "float32")
