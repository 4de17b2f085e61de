"""SciPy's transforms, several threads, no gradients: they are transforms again."""

from mixers.bench.contender import Contender

INSTALL = "scipy"


def contenders(subject, backend, backward, threads):
    from scipy import fft

    forms = {
        "dct": lambda x: fft.dctn(x, 2, axes=_axes(x), norm="ortho", workers=threads),
        "idct": lambda x: fft.idctn(x, 2, axes=_axes(x), norm="ortho", workers=threads),
    }
    if backend != "cpu" or subject.name not in forms:
        return []
    form, inverse = forms[subject.name], forms["idct" if subject.name == "dct" else "dct"]
    x = subject.arrays["x"]

    def both():
        form(x)
        inverse(x)

    back = (lambda: inverse(x), both) if backward else (None, None)
    return [Contender("scipy", lambda: form(x), *back, lambda: form(x))]


def _axes(x):
    return tuple(range(1, x.ndim - 1))
