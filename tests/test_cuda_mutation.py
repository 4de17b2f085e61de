"""Every kernel case under several schedules and strides, and every barrier shown to be needed.

A barrier that is skipped must change a result or be noticed by the checker: a barrier for which neither
happens is superfluous, or no case tests what it is for.
"""

import functools
import pathlib
import re

import cuda_emulator
import harness
import numpy
import pytest
import tolerances
from cuda_emulator import EmulatorError, cases, schedules

from mixers.gpu import device as seam

KERNELS = pathlib.Path(seam.__file__).parent / "kernels"
FILES = sorted(path.name for path in KERNELS.iterdir() if path.suffix in (".cu", ".cuh"))
CASES = cases.all_cases()
OP_CASES = [case for case in CASES if case.is_op]

_BARRIER = re.compile(r"\b(__syncthreads(_or|_and|_count)?|__syncwarp|copy_async_wait\s*<[^>]*>)\s*\(")


def barrier_lines(file):
    """Lines of a kernel file that hold a barrier."""
    lines = (KERNELS / file).read_text().splitlines()
    # the helper's own definition is none
    code = [line.partition("//")[0] for line in lines]
    return [n for n, line in enumerate(code, 1) if _BARRIER.search(line) and "__forceinline__" not in line]


def includes(file):
    """Whether a case's file is `file` or contains it."""
    return lambda case: (
        case.file == file
        or ((KERNELS / case.file).suffix == ".cu" and f'#line 1 "{file}"' in seam.source_text(case.file))
    )


@pytest.mark.parametrize("case", CASES, ids=[f"{case.file}-{case.name}" for case in CASES])
def test_schedules_agree(case):
    dtype = "float32" if "float32" in case.dtypes else case.dtypes[0]
    cuda_emulator.run_schedules(lambda device: case.run(device, dtype))


def twisted(array):
    """A device array of awkward strides: reversed, transposed and padded memory, read-only."""
    return harness.twisted(array.view(numpy.ndarray)).view(cuda_emulator.DeviceArray)


@pytest.mark.parametrize("case", OP_CASES, ids=[f"{case.file}-{case.name}" for case in OP_CASES])
def test_strides_do_not_matter(case):
    dtype = "float32" if "float32" in case.dtypes else case.dtypes[0]
    results = []
    for arrange in (lambda array: array, twisted):
        with cuda_emulator.activate() as device:
            result = case.run(device, dtype, arrange)
            results.append(schedules.arrays(schedules.to_host(result, device)))
    # sums by the arrays' own methods may take another order
    scale = max((float(abs(want).max(initial=0)) for want in results[0]), default=0.0)
    for want, got in zip(*results, strict=True):
        harness.assert_close(case.name, got, want, tolerances.BACKWARD[dtype], floor=1e-6 * scale)


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".cu")])
def test_every_kernel_has_a_case(file):
    declared = set(
        re.findall(r'extern\s*"C"\s*__global__[^;{]*?\b(\w+)\s*\((?!\()[^)]*\)\s*\{', seam.source_text(file))
    )
    assert declared, f"{file} declares no kernel"
    launched = set()
    for case in CASES:
        for dtype in case.dtypes if case.file == file else ():
            with cuda_emulator.activate(dry=True) as device:
                case.run(device, dtype)
            launched |= {launch.kernel.name for launch in device.launches}
    assert declared <= launched, (
        f"no case in tests/cuda_emulator/cases launches {sorted(declared - launched)}"
    )


@pytest.mark.parametrize("file", [file for file in FILES if barrier_lines(file)])
def test_every_barrier_is_needed(file):
    reached = [(case, *observe(case)) for case in filter(includes(file), CASES)]
    for line in barrier_lines(file):
        met = [(case, bits) for case, bits, places in reached if (file, line) in places]
        assert met, f"no case in tests/cuda_emulator/cases reaches the barrier at {file}:{line}"
        assert any(is_missed(case, bits, (file, line)) for case, bits in met), (
            f"nothing notices that the barrier at {file}:{line} is missing in {[case.name for case, _ in met]}"
        )


@functools.cache
def observe(case):
    """The bits of a case's result and the places of the barriers it met."""
    with cuda_emulator.activate() as device:
        device.recording = True
        bits = schedules.bits(schedules.to_host(case.run(device, "float32"), device))
        return bits, device.barriers()


def is_missed(case, bits, place):
    """Whether skipping the barrier at `place` is noticed."""
    checked = ({"checked": True, **options} for options in schedules.SCHEDULES[:2])
    return any(is_noticed(case, bits, place, options) for options in (*checked, *schedules.SCHEDULES))


def is_noticed(case, bits, place, options):
    with cuda_emulator.activate(**options) as device:
        device.skipped_barrier = place
        try:
            result = case.run(device, "float32")
        except EmulatorError:
            return True
        # builds with checks may round differently
        return not device.checked and schedules.bits(schedules.to_host(result, device)) != bits


def test_a_missing_barrier_would_be_reported(tmp_path, monkeypatch):
    """The test above can fail: here a barrier that nothing needs."""
    kernel = tmp_path / "needless.cu"
    kernel.write_text(
        'extern "C" __global__ void f(float* y) {\n  __syncthreads();\n  y[threadIdx.x] = 1;\n}\n'
    )

    def run(device, dtype):
        y = device.empty(64, dtype)
        device.launch(seam.Kernel("f", str(kernel)), (1,), (64,), (y,))
        return y

    case = cases.KernelCase(str(kernel), "needless", run, ("float32",))
    assert barrier_lines(str(kernel)) == [2]
    monkeypatch.setitem(globals(), "CASES", [case])
    with pytest.raises(AssertionError, match="nothing notices that the barrier"):
        test_every_barrier_is_needed(str(kernel))
    monkeypatch.setitem(globals(), "CASES", [])
    with pytest.raises(AssertionError, match=r"no case .* reaches the barrier"):
        test_every_barrier_is_needed(str(kernel))
