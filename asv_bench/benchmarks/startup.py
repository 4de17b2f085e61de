"""What a new process pays: the import, and the first call of an op or mixer."""

import os
import subprocess
import sys
import tempfile

FIRST_CALL = """
import sys, time
import mixers
from mixers import samples, subjects
subject = subjects.find(sys.argv[1])
start = time.perf_counter()
out, saved = subject.forward(subject.arrays)
subject.backward(samples.cotangent(out), saved)
print(time.perf_counter() - start)
"""


class Import:
    def timeraw_mixers(self):
        return "import mixers"

    def timeraw_mixers_with_ops_and_zoo(self):
        return "import mixers; mixers.ops; mixers.zoo"

    def timeraw_numpy(self):
        """For comparison: mixers cannot be faster than this."""
        return "import numpy"


class FirstCall:
    """First forward and backward on the CPU, with an empty and with a filled cache of compiled kernels."""

    param_names = ("name",)
    params = (
        "gelu",
        "layer_norm",
        "linear",
        "depthwise_conv2d",
        "selective_scan",
        "long_conv1d",
        "kan_attention",
        "gated_cnn",
        "hyena",
        "mamba",
    )
    timeout = 600
    version = "2"

    def track_empty_cache(self, name):
        with tempfile.TemporaryDirectory() as directory:
            return _first_call(name, directory)

    def track_filled_cache(self, name):
        with tempfile.TemporaryDirectory() as directory:
            _first_call(name, directory)
            return _first_call(name, directory)

    track_empty_cache.unit = "seconds"
    track_filled_cache.unit = "seconds"


def _first_call(name, directory):
    environment = {**os.environ, "MIXERS_CACHE_DIR": directory}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL, name], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)
