"""What a new process pays: the import, and the first call of an op."""

import os
import subprocess
import sys
import tempfile

FIRST_CALL = """
import sys, time
import mixers
from mixers import ops, samples
arguments = samples.op_sample(sys.argv[1])
start = time.perf_counter()
op = getattr(ops, sys.argv[1])
out, saved = op.forward(**arguments)
op.backward(samples.cotangent(out), saved)
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

    param_names = ("op",)
    params = (
        "gelu",
        "layer_norm",
        "linear",
        "depthwise_conv2d",
        "selective_scan",
        "long_conv1d",
        "kan_attention",
    )
    timeout = 600
    version = "1"

    def track_empty_cache(self, op):
        with tempfile.TemporaryDirectory() as directory:
            return _first_call(op, directory)

    def track_filled_cache(self, op):
        with tempfile.TemporaryDirectory() as directory:
            _first_call(op, directory)
            return _first_call(op, directory)

    track_empty_cache.unit = "seconds"
    track_filled_cache.unit = "seconds"


def _first_call(op, directory):
    environment = {**os.environ, "MIXERS_CACHE_DIR": directory}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL, op], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)
