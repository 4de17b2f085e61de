"""Every kernel, in every dtype the cases run it in, through NVIDIA's compiler, and on a GPU if there is one.

What there is to compile is read off the launches of the kernel cases, so that no list can go stale. NVRTC is
what CuPy uses and needs no GPU (pip install nvidia-cuda-nvrtc-cu12); nvcc stands in where it is installed.
"""

import concurrent.futures
import ctypes
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import cuda_emulator
import pytest
import tolerances
from cuda_emulator import build, cases, schedules
from harness import assert_close

from mixers.gpu import device as seam

FILES = sorted(path.name for path in (pathlib.Path(seam.__file__).parent / "kernels").glob("*.cu"))
# every variant is compiled for the first, one variant of a file for the others
ARCHITECTURES = ("sm_90", "sm_80")


class Nvrtc:
    """NVIDIA's run-time compiler, called through ctypes."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"NVRTC {major.value}.{minor.value}"

    def errors(self, source, architecture):
        """What the compiler says about a source that it refuses; None if it takes it."""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        text = ctypes.c_char_p(source.encode())
        if self.library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None):
            raise RuntimeError("nvrtcCreateProgram failed")
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
        failed = self.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * 2)(*options))
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return log.value.decode() if failed else None


class Nvcc:
    """The toolkit's compiler."""

    def __init__(self):
        self.version = subprocess.run(
            ["nvcc", "--version"], capture_output=True, text=True, check=True
        ).stdout

    def errors(self, source, architecture):
        # a folder of its own: several test processes may compile the same source at once
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "kernel.cu"
            file.write_text(source)
            command = ["nvcc", "-std=c++17", f"-arch={architecture}", "-cubin", "-o", "/dev/null", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr if done.returncode else None


NO_COMPILER = "needs NVRTC (pip install nvidia-cuda-nvrtc-cu12) or nvcc"


@functools.cache
def compiler():
    """The compiler at hand, or None."""
    for folder in map(pathlib.Path, sys.path):
        for path in [
            *folder.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.*"),
            *folder.glob("nvidia/cu13/lib/libnvrtc.so.*"),
        ]:
            if "alt" not in path.name:
                return Nvrtc(path)
    return Nvcc() if shutil.which("nvcc") else None


def variants(file):
    """One kernel for every set of macros that the cases of a file launch it with, in every dtype."""
    found = {}
    for case in cases.all_cases():
        if case.file == file:
            for dtype in case.dtypes:
                with cuda_emulator.activate(dry=True) as device:
                    case.run(device, dtype)
                found.update({(k.file, k.defines): k for k in (launch.kernel for launch in device.launches)})
    return list(found.values())


def check(kernel, architecture):
    """Compile, unless the very same was compiled before on this machine."""
    key = "\0".join([kernel.source(), architecture, compiler().version])
    stamp = build.cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.compiled"
    if stamp.exists():
        return
    errors = compiler().errors(kernel.source(), architecture)
    assert errors is None, f"{kernel} for {architecture}:\n{errors}"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


@pytest.mark.parametrize("file", FILES)
def test_compiles(file):
    if compiler() is None:
        pytest.skip(NO_COMPILER)
    kernels = variants(file)
    assert kernels, f"no case in tests/cuda_emulator/cases launches {file}"
    jobs = [(kernel, ARCHITECTURES[0]) for kernel in kernels] + [(kernels[0], a) for a in ARCHITECTURES[1:]]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in [pool.submit(check, *job) for job in jobs]:
            job.result()


@pytest.mark.parametrize("architecture", ["sm_75", *ARCHITECTURES])
def test_helpers_compile(architecture):
    """All of common.cuh, whichever of it the kernels use at present."""
    if compiler() is None:
        pytest.skip(NO_COMPILER)
    folder = pathlib.Path(cuda_emulator.__file__).parent / "selftest"
    check(seam.Kernel("copies_asynchronously", str(folder / "bugs.cu")), architecture)
    for storage in ("float", "double", "f16_t", "bf16_t"):
        check(
            seam.Kernel("widen", str(folder / "built_ins.cu"), T=storage, FUNCTION="fast_softplus"),
            architecture,
        )


def test_errors_are_reported(tmp_path):
    if compiler() is None:
        pytest.skip(NO_COMPILER)
    broken = tmp_path / "broken.cu"
    broken.write_text('extern "C" __global__ void f(int* y) { y[0] = unknown; }\n')
    with pytest.raises(AssertionError, match=r"broken.cu.*unknown"):
        check(seam.Kernel("f", str(broken)), ARCHITECTURES[0])


@pytest.fixture(scope="module")
def gpu():
    try:
        return seam.cupy_device()
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.mark.gpu
@pytest.mark.parametrize("case", cases.all_cases(), ids=lambda case: f"{case.file}-{case.name}")
def test_gpu_agrees_with_the_emulator(case, gpu):
    for dtype in case.dtypes:
        got = schedules.arrays(schedules.to_host(case.run(gpu, dtype), gpu))
        with cuda_emulator.activate() as device:
            want = schedules.arrays(schedules.to_host(case.run(device, dtype), device))
        scale = max(abs(w.astype("float64")).max(initial=0) for w in want)
        for number, (g, w) in enumerate(zip(got, want, strict=True)):
            assert g.dtype == w.dtype
            name = f"{case.name} {dtype} result {number}"
            assert_close(name, g, w, tolerances.BACKWARD[dtype], floor=1e-6 * scale)
