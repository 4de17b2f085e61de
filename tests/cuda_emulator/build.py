"""Compiles kernels with g++ into libraries that the emulator runs, with a cache on disk."""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import time

RUNTIME = pathlib.Path(__file__).parent / "runtime"

# v3 and not native: a cache folder may move between machines; fused multiply-add, as nvcc contracts too
_MACHINE = ["-march=x86-64-v3"] if platform.machine() == "x86_64" else []
_LANGUAGE = ["-std=c++17", "-w", "-fno-strict-aliasing", "-fsigned-char", "-ffp-contract=fast", *_MACHINE]
# unique symbols would be shared by all libraries of the process
_LIBRARY = ["-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"]
_UNDEFINED = "bounds,alignment,shift,integer-divide-by-zero,float-cast-overflow,signed-integer-overflow"
# the sanitizers' libraries are never linked: checker.cpp supplies the calls, undefined behaviour traps
_CHECKED = [
    *("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"),
    *(f"-fsanitize={_UNDEFINED}", "-fsanitize-undefined-trap-on-error"),
]

_KERNEL = re.compile(
    r'extern\s*"C"\s*__attribute__\(\(emulator_kernel\)\)\s*(?:void\s*)?'
    r"(?:__attribute__\(\(emulator_bounds\((?P<bounds>.*?)\)\)\)\s*)?(?:void\s*)?(?P<name>\w+)\s*\(",
    re.DOTALL,
)

_GLUE = """
extern "C" __attribute__((visibility("default"), no_sanitize("thread")))
void emulator_entry_{name}(void** arguments) {{ emulator::enter({name}, arguments); }}
extern "C" __attribute__((visibility("default"), no_sanitize("thread")))
int emulator_describe_{name}(char* kinds, char* items, int* sizes) {{
  return emulator::describe({name}, kinds, items, sizes);
}}
extern "C" __attribute__((visibility("default")))
int emulator_bounds_{name}() {{ return emulator::first({bounds}); }}
"""
# static shared arrays are all that a library has in .bss, as it is linked without start files
_GLUE_RANGE = """
extern "C" char __bss_start[] __attribute__((visibility("hidden")));
extern "C" char _end[] __attribute__((visibility("hidden")));
extern "C" __attribute__((visibility("default")))
void emulator_static_range(char** begin, char** end) { *begin = __bss_start; *end = _end; }
"""


class EmulatorError(RuntimeError):
    """A kernel that does not compile, is launched wrongly, or does what a GPU would not forgive."""


def missing():
    """Why the emulator cannot run here, or None if it can."""
    if platform.system() != "Linux":
        return "the CUDA emulator needs Linux"
    if shutil.which("g++") is None:
        return "the CUDA emulator needs g++ (Debian: apt-get install g++)"
    return None


@functools.cache
def runtime():
    """The library with the fibers, the scheduler and the checker; loaded once, before any kernel."""
    flags = ["-O2", "-g1", "-U_FORTIFY_SOURCE", *_LANGUAGE, *_LIBRARY, f"-I{RUNTIME}"]
    if os.environ.get("MIXERS_TEST_UCONTEXT"):
        flags.append("-DUSE_UCONTEXT")
    texts = [path.read_text() for path in sorted(RUNTIME.iterdir())]

    def compile_to(target):
        sources = [str(RUNTIME / "runtime.cpp"), str(RUNTIME / "checker.cpp")]
        _run(["g++", *flags, "-shared", "-o", target, *sources, "-lpthread"])

    return ctypes.CDLL(str(_cached([*texts, *flags], compile_to)), mode=ctypes.RTLD_GLOBAL)


class Library:
    """The kernels of one source text, compiled and loaded."""

    def __init__(self, source, checked):
        runtime()
        # every page of a large frame is touched, so that none reaches over the guard page of a stack
        compile_flags = ["-O1", "-gdwarf-4", "-g1", "-fstack-clash-protection", *_LANGUAGE, *_LIBRARY]
        if checked:
            compile_flags += _CHECKED
        shim = RUNTIME / "cuda_cpu.h"

        def compile_to(target):
            preprocess = ["g++", "-E", *_LANGUAGE, "-include", str(shim), "-x", "c++", "-"]
            text = _run(preprocess, source)
            objects = target + ".o"
            command = ["g++", "-x", "c++-cpp-output", *compile_flags, "-c", "-", "-o", objects]
            _run(command, text + _glue(text))
            _run(["g++", "-shared", "-nostartfiles", "-o", target, objects])
            os.remove(objects)

        self.path = _cached([source, shim.read_text(), *compile_flags], compile_to)
        self.library = ctypes.CDLL(str(self.path))
        begin, end = ctypes.c_void_p(), ctypes.c_void_p()
        self.library.emulator_static_range(ctypes.byref(begin), ctypes.byref(end))
        self.static_range = begin.value, end.value
        self._entries = {}

    def entry(self, name):
        """The entry point of a kernel with its parameters."""
        if name not in self._entries:
            self._entries[name] = Entry(self.library, name)
        return self._entries[name]

    def place(self, address):
        """The source line of an address in the library, as file:line."""
        command = ["addr2line", "-s", "-e", str(self.path), hex(address - 1)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return found.split(" (discriminator")[0]


class Entry:
    """A kernel's entry point, its parameters as (kind, kind of item, bytes) and its largest block.

    A kind is f, i, b or s (a struct), or for pointers p (to const) and P; bytes are those of an item.
    """

    def __init__(self, library, name):
        try:
            self.address = ctypes.cast(getattr(library, f"emulator_entry_{name}"), ctypes.c_void_p)
        except AttributeError:
            raise EmulatorError(f"{name}: the file has no such kernel with these macros") from None
        kinds, items = ctypes.create_string_buffer(128), ctypes.create_string_buffer(128)
        sizes = (ctypes.c_int * 128)()
        count = getattr(library, f"emulator_describe_{name}")(kinds, items, sizes)
        self.parameters = list(zip(kinds.raw[:count].decode(), items.raw[:count].decode(), sizes[:count]))
        self.max_threads = getattr(library, f"emulator_bounds_{name}")()


def _glue(text):
    kernels = list(_KERNEL.finditer(text))
    if len(kernels) != text.count("emulator_kernel"):
        raise EmulatorError('kernels must be declared as extern "C" __global__ void name(...)')
    entries = "".join(_GLUE.format(name=k["name"], bounds=k["bounds"] or "1024") for k in kernels)
    return '\n# 1 "entry points"\n' + entries + _GLUE_RANGE


def cache_folder():
    """Where built libraries are kept: MIXERS_TEST_CACHE, else a folder of the user's cache."""
    chosen = os.environ.get("MIXERS_TEST_CACHE")
    if chosen:
        return pathlib.Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "token-mixers" / "emulator"


def _cached(parts, compile_to):
    """Path of the library made from `parts`; built to another name and renamed, so that processes may race."""
    key = hashlib.sha256("\0".join([*parts, compiler_version()]).encode()).hexdigest()[:24]
    path = _pruned_folder() / f"{key}.so"
    if path.exists():
        os.utime(path)
    else:
        target = str(path.with_suffix(f".{os.getpid()}"))
        compile_to(target)
        os.replace(target, path)
    return path


@functools.cache
def _pruned_folder():
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    month_ago = time.time() - 30 * 86400
    for path in folder.iterdir():
        if path.stat().st_mtime < month_ago:
            path.unlink(missing_ok=True)
    return folder


@functools.cache
def compiler_version():
    return _run(["g++", "--version"])


def _run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmulatorError(f"{command[0]} failed:\n{done.stderr[:4000]}")
    return done.stdout
