"""The emulator itself: it must compute what CUDA defines and catch what a GPU would not forgive."""

import os
import pathlib
import subprocess
import sys
import threading
import unittest

import cuda_emulator
import ml_dtypes
import numpy
import pytest
import scipy.special
from cuda_emulator import EmulatorError, build

from mixers.gpu.device import Kernel

FOLDER = pathlib.Path(cuda_emulator.__file__).parent / "selftest"
BUGS, BUILT_INS = str(FOLDER / "bugs.cu"), str(FOLDER / "built_ins.cu")
i32, i64 = numpy.int32, numpy.int64


def bug(name, faulty=True):
    return Kernel(name, BUGS, WITH_FAULT=1) if faulty else Kernel(name, BUGS)


def run_bug(name, *args, grid=(1,), block=(64,), shared=0, faulty=True, **options):
    """Launch a kernel of bugs.cu on a fresh device; returns its output array y of 64 items."""
    with cuda_emulator.activate(**options) as device:
        device.time_limit = 0.3
        y = device.zeros(64, "float32")
        device.launch(bug(name, faulty), grid, block, (y, *args), shared)
        return device.to_host(y)


def line_of(text):
    """The line of bugs.cu that holds this text."""
    lines = pathlib.Path(BUGS).read_text().splitlines()
    return f"bugs.cu:{1 + next(i for i, line in enumerate(lines) if text in line)}"


class Schedules:
    """Kernels with and without their barrier, as functions of a device."""

    @staticmethod
    def reverse_rows(device, faulty):
        x = numpy.arange(400, dtype="float32").reshape(4, 100)
        y = device.empty((4, 100), "float32")
        device.launch(bug("reverse_rows", faulty), (4,), (128,), (device.to_device(x), y, i32(100)), 400)
        return y, x[:, ::-1]

    @staticmethod
    def write_after_read(device, faulty):
        x = numpy.arange(512, dtype="float32")
        y = device.empty(128, "float32")
        device.launch(bug("write_after_read", faulty), (1,), (128,), (device.to_device(x), y, i32(4)))
        return y, x.reshape(4, 128)[:, ::-1].sum(0)

    @staticmethod
    def exchange_in_warp(device, faulty):
        y = device.empty(32, "float32")
        device.launch(bug("exchange_in_warp", faulty), (1,), (32,), (y,))
        return y, (numpy.arange(32) ^ 1).astype("float32")

    @staticmethod
    def write_after_many_reads(device, faulty):
        y = device.empty(96, "float32")
        device.launch(bug("write_after_many_reads", faulty), (1,), (96,), (y,))
        return y, numpy.ones(96, "float32")

    @staticmethod
    def copies_asynchronously(device, faulty):
        x = numpy.arange(1, 129, dtype="float32")
        y = device.empty(128, "float32")
        device.launch(bug("copies_asynchronously", faulty), (1,), (32,), (device.to_device(x), y))
        # the last copy reads half of its bytes, the rest is zero
        x[126:] = 0
        return y, x[::-1]


BARRIERS = ["reverse_rows", "write_after_read", "exchange_in_warp", "write_after_many_reads"]


class TestSchedules:
    @pytest.mark.parametrize("name", [*BARRIERS, "copies_asynchronously"])
    def test_sound_kernels_agree(self, name):
        y, want = cuda_emulator.run_schedules(lambda device: getattr(Schedules, name)(device, faulty=False))
        numpy.testing.assert_array_equal(y, want)

    @pytest.mark.parametrize("name", BARRIERS)
    def test_schedules_find_a_missing_barrier(self, name, monkeypatch):
        monkeypatch.setattr(cuda_emulator.schedules, "activate", unchecked)
        with pytest.raises(AssertionError, match="depends on the schedule"):
            cuda_emulator.run_schedules(lambda device: getattr(Schedules, name)(device, faulty=True))

    @pytest.mark.parametrize("name", BARRIERS)
    def test_checker_finds_a_missing_barrier(self, name):
        with cuda_emulator.activate(checked=True) as device:
            with pytest.raises(EmulatorError, match=r"(race|uninitialised).* at bugs\.cu:\d+"):
                getattr(Schedules, name)(device, faulty=True)

    def test_missing_wait_leaves_poison(self):
        with cuda_emulator.activate() as device:
            y, _ = Schedules.copies_asynchronously(device, faulty=True)
            assert numpy.isnan(device.to_host(y)).all()

    def test_warps_may_work_on_their_own(self):
        def run(device):
            y = device.empty(64, "float32")
            device.launch(Kernel("warps_on_their_own", BUGS), (1,), (64,), (y,))
            return y

        want = 3.0 + (numpy.arange(64) ^ 1)[::-1]
        numpy.testing.assert_array_equal(cuda_emulator.run_schedules(run), want)

    def test_scratch_read_before_it_is_written_is_found(self):
        with pytest.raises(AssertionError, match="depends on the schedule"):
            cuda_emulator.run_schedules(lambda device: [{"scratch": device.empty(3, "int32") + 1}])

    def test_structure_of_the_result_is_kept(self):
        device_result = lambda device: {
            "a": [device.zeros(2, "int8"), None],
            "b": (1, device.zeros((), "int8")),
        }
        result = cuda_emulator.run_schedules(device_result)
        assert type(result["a"][0]) is numpy.ndarray
        assert result["a"][1] is None
        assert result["b"][0] == 1
        assert result["b"][1].shape == ()

    @pytest.mark.parametrize("schedule", ["fifo", "lifo", "random"])
    def test_every_block_runs_once(self, schedule):
        with cuda_emulator.activate(schedule=schedule, seed=7) as device:
            n = device.zeros(2, "int32")
            y = device.zeros(1, "float32")
            device.launch(bug("counts"), (3, 5, 2), (64,), (y, n))
            assert device.to_host(y)[0] == 1.5 * 30 * 64
            assert device.to_host(n).tolist() == [30 * 32] * 2


def unchecked(checked=False, **options):
    return cuda_emulator.activate(**options)


class TestFaults:
    @pytest.mark.parametrize("checked", [False, True])
    @pytest.mark.parametrize(
        ("name", "args", "message"),
        [
            ("barrier_in_two_branches", (i32(40),), "divergent barrier"),
            (
                "return_before_barrier",
                (i32(40),),
                r"24 thread\(s\) .* exited before the barrier at .*bugs.cu",
            ),
            ("shuffle_in_branch", (i32(40),), "divergent warp collective|deadlock"),
            ("endless", (), "endless loop"),
        ],
    )
    def test_control_flow(self, name, args, message, checked):
        with pytest.raises(EmulatorError, match=message):
            run_bug(name, *args, checked=checked)

    def test_trap(self):
        with cuda_emulator.activate() as device, pytest.raises(EmulatorError, match="__trap"):
            device.launch(bug("traps"), (1,), (1,), ())

    def test_branches_taken_alike_are_fine(self):
        assert run_bug("barrier_in_two_branches", i32(64), checked=True).tolist() == [1.0] * 64

    @pytest.mark.parametrize("offset", [1, -1, 64, 1 << 30])
    def test_global_bounds(self, offset):
        assert run_bug("global_index_off", i64(0), checked=True).tolist() == [1.0] * 64
        where = line_of("void global_index_off")
        with pytest.raises(EmulatorError, match=f"out-of-bounds write of 4 bytes.* at {where}"):
            run_bug("global_index_off", i64(offset), checked=True)

    def test_far_accesses_are_caught_without_checks(self):
        with pytest.raises(EmulatorError, match=r"invalid address.* at bugs.cu"):
            run_bug("global_index_off", i64(1 << 40))

    def test_bounds_are_those_of_the_view(self):
        with cuda_emulator.activate(checked=True) as device:
            y = device.zeros(128, "float32")
            device.launch(bug("global_index_off"), (1,), (64,), (y[64:], i64(0)))
            with pytest.raises(EmulatorError, match="4 bytes before an argument"):
                device.launch(bug("global_index_off"), (1,), (64,), (y[64:], i64(-1)))

    def test_static_shared_bounds(self):
        with pytest.raises(
            EmulatorError, match=f"undefined behaviour.* at {line_of('row[threadIdx.x + offset]')}"
        ):
            run_bug("static_shared_off", i32(1), block=(32,), checked=True)

    def test_dynamic_shared_bounds(self):
        assert run_bug("dynamic_shared_off", i32(0), shared=256, checked=True).tolist() == [1.0] * 64
        with pytest.raises(EmulatorError, match="out-of-bounds write"):
            run_bug("dynamic_shared_off", i32(1), shared=256, checked=True)
        with pytest.raises(EmulatorError, match="invalid address"):
            run_bug("dynamic_shared_off", i32(1), shared=256)
        with pytest.raises(EmulatorError, match="none given"):
            run_bug("dynamic_shared_off", i32(0))

    def test_uninitialised_shared_memory(self):
        assert numpy.isnan(run_bug("uninitialised")).sum() == 1
        where = line_of("row[threadIdx.x + 1];")
        with pytest.raises(EmulatorError, match=f"uninitialised read of shared memory.* at {where}"):
            run_bug("uninitialised", checked=True)

    def test_shared_memory_of_templates(self):
        assert numpy.isnan(run_bug("uninitialised_in_template", block=(32,))[:32]).all()
        with pytest.raises(EmulatorError, match="uninitialised read"):
            run_bug("uninitialised_in_template", block=(32,), checked=True)

    def test_races_between_blocks(self):
        run_bug("all_blocks_one_cell", checked=True)
        with pytest.raises(EmulatorError, match=r"race: write of global memory .* another block"):
            run_bug("all_blocks_one_cell", grid=(2,), checked=True)
        with pytest.raises(
            EmulatorError, match=r"race: write of global memory .* against a read by another block"
        ):
            run_bug("read_by_earlier_block", grid=(3,), block=(1,), checked=True)

    def test_atomics_do_not_race(self):
        with cuda_emulator.activate(checked=True) as device:
            y, n = device.zeros(1, "float32"), device.zeros(2, "int32")
            device.launch(bug("counts"), (3,), (64,), (y, n))
            assert device.to_host(n).tolist() == [96, 96]

    def test_misaligned_vector(self):
        with cuda_emulator.activate(checked=True) as device:
            x, y = device.zeros(16, "float32"), device.zeros(1, "float32")
            device.launch(bug("misaligned"), (1,), (1,), (x, y, i32(4)))
            with pytest.raises(EmulatorError, match="undefined behaviour"):
                device.launch(bug("misaligned"), (1,), (1,), (x, y, i32(1)))

    def test_stack_overflow(self):
        with pytest.raises(EmulatorError, match="stack overflow"):
            run_bug("stack_overflow", i32(0), block=(1,))

    def test_local_array_bounds(self):
        with pytest.raises(EmulatorError, match="undefined behaviour"):
            run_bug("local_array_off", i32(5), block=(1,), checked=True)

    def test_the_next_launch_is_sound(self):
        with pytest.raises(EmulatorError):
            run_bug("global_index_off", i64(1 << 40))
        assert run_bug("barrier_in_two_branches", i32(64)).tolist() == [1.0] * 64

    def test_offsets_beyond_2_to_31(self):
        """Memory nobody touches costs nothing, so the end of a huge array can be reached in microseconds."""
        n = 2**31 + 1000
        with cuda_emulator.activate(last_blocks=4) as device:
            x, y = device.zeros(n, ml_dtypes.bfloat16), device.empty(n, ml_dtypes.bfloat16)
            x[-1] = 3.0
            grid = (-(-n // 1024),)
            device.launch(Kernel("copy_wide", BUGS), grid, (1024,), (x, y, i64(n)))
            assert float(y[-1]) == 3.0
            with pytest.raises(EmulatorError, match="invalid address"):
                device.launch(Kernel("copy_narrow", BUGS), grid, (1024,), (x, y, i64(n)))


class TestLaunch:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (lambda y: (y, 3), "argument 1 must be an array of the device, a NumPy scalar or None, got int"),
            (lambda y: (numpy.zeros(3), i32(3)), "argument 0 must be an array of the device"),
        ],
    )
    def test_argument_types(self, args, message):
        with cuda_emulator.activate() as device, pytest.raises(TypeError, match=message):
            device.launch(bug("static_shared_off"), (1,), (32,), args(device.zeros(32, "float32")))

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (lambda y: (y, i64(0)), "argument 1: int64 given for a parameter of kind 'i' and 4 bytes"),
            (lambda y: (y, numpy.float32(0)), "argument 1: float32 given"),
            (lambda y: (y.astype("float64"), i32(0)), "argument 0: float64 array given for a pointer"),
            (lambda y: (y.astype("int32"), i32(0)), "argument 0: int32 array given for a pointer"),
            (lambda y: (y,), "1 arguments were given for 2 parameters"),
            (lambda y: (numpy.broadcast_to(y, (2, 32)), i32(0)), "argument 0: a read-only array"),
        ],
    )
    def test_arguments_against_parameters(self, args, message):
        with cuda_emulator.activate() as device, pytest.raises(EmulatorError, match=message):
            device.launch(bug("static_shared_off"), (1,), (32,), args(device.zeros(32, "float32")))

    @pytest.mark.parametrize(
        ("grid", "block", "shared", "message"),
        [
            ((0,), (32,), 0, "grid must be within"),
            ((1, 70000), (32,), 0, "grid must be within"),
            ((1,), (1025,), 0, "block must hold 1 to 1024 threads"),
            ((1,), (1, 1, 65), 0, "block must hold"),
            ((1,), (32,), 200 << 10, "shared must be at most 101376 bytes"),
        ],
    )
    def test_limits(self, grid, block, shared, message):
        with cuda_emulator.activate() as device, pytest.raises(ValueError, match=message):
            y = device.zeros(32, "float32")
            device.launch(bug("static_shared_off"), grid, block, (y, i32(0)), shared)

    def test_launch_bounds(self):
        with (
            cuda_emulator.activate() as device,
            pytest.raises(EmulatorError, match=r"__launch_bounds__\(128\)"),
        ):
            device.launch(
                bug("write_after_read"), (1,), (256,), (device.zeros(1, "float32"),) * 2 + (i32(1),)
            )

    def test_null_pointer(self):
        with cuda_emulator.activate() as device, pytest.raises(EmulatorError, match="invalid address"):
            device.launch(bug("all_blocks_one_cell"), (1,), (1,), (None,))

    def test_launches_are_noted_and_a_dry_device_only_notes(self):
        with cuda_emulator.activate(dry=True) as device:
            device.launch(Kernel("no_such", "no_such.cu"), (3, 2), (64,), (), 16)
            ((kernel, grid, block, shared),) = device.launches
        assert (kernel.name, grid, block, shared) == ("no_such", (3, 2, 1), (64, 1, 1), 16)

    def test_two_threads_at_once(self):
        results = []

        def work():
            for _ in range(20):
                results.append(run_bug("barrier_in_two_branches", i32(64), schedule="random").tolist())

        # one warms the build, so that the threads meet in the launches
        work()
        with cuda_emulator.activate() as device:
            y = [device.zeros(64, "float32") for _ in range(2)]
            arguments = bug("barrier_in_two_branches"), (50,), (64,)
            launch = lambda y: [device.launch(*arguments, (y, i32(64))) for _ in range(20)]
            threads = [threading.Thread(target=launch, args=(part,)) for part in y]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert all((device.to_host(part) == 1).all() for part in y)
        assert results == [[1.0] * 64] * 20


class TestBuild:
    def test_messages_of_the_compiler(self, tmp_path):
        broken = tmp_path / "broken.cu"
        broken.write_text('extern "C" __global__ void f(int* y) { y = unknown; }\n')
        with cuda_emulator.activate() as device, pytest.raises(EmulatorError, match=r"broken.cu:1.*unknown"):
            device.launch(Kernel("f", str(broken)), (1,), (1,), (device.zeros(1, "int32"),))

    def test_unknown_kernel(self):
        with cuda_emulator.activate() as device, pytest.raises(EmulatorError, match="no such kernel"):
            device.launch(Kernel("nothing", BUGS), (1,), (1,), ())

    def test_kernels_need_c_linkage(self, tmp_path):
        mangled = tmp_path / "mangled.cu"
        mangled.write_text("__global__ void f() {}\n")
        with cuda_emulator.activate() as device, pytest.raises(EmulatorError, match='extern "C"'):
            device.launch(Kernel("f", str(mangled)), (1,), (1,), ())

    def test_macros_choose_kernels_and_bounds(self, tmp_path):
        source = tmp_path / "chosen.cu"
        source.write_text(
            "#if N == 2\n"
            'extern "C" __global__ void __launch_bounds__(16 * N, 2) two(int* y) { y[0] = N; }\n'
            "#else\n"
            'extern "C" __global__ void one(int* y) { y[0] = N; }\n'
            "#endif\n"
        )
        with cuda_emulator.activate() as device:
            y = device.zeros(1, "int32")
            device.launch(Kernel("two", str(source), N=2), (1,), (1,), (y,))
            assert int(y[0]) == 2
            with pytest.raises(EmulatorError, match=r"__launch_bounds__\(32\)"):
                device.launch(Kernel("two", str(source), N=2), (1,), (33,), (y,))
            device.launch(Kernel("one", str(source), N=5), (1,), (1,), (y,))
            assert int(y[0]) == 5

    def test_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(build, "_pruned_folder", lambda: tmp_path)
        source = 'extern "C" __global__ void f(int* y) { y[0] = 1; }\n'
        first = build.Library(source, checked=False).path
        assert [path.name for path in tmp_path.iterdir()] == [first.name]
        assert build.Library(source, checked=True).path != first
        monkeypatch.setattr(build, "_run", None)
        assert build.Library(source, checked=False).path == first

    def test_cache_folder(self, monkeypatch):
        monkeypatch.setenv("MIXERS_TEST_CACHE", "/somewhere/else")
        assert build.cache_folder() == pathlib.Path("/somewhere/else")
        monkeypatch.delenv("MIXERS_TEST_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
        assert build.cache_folder() == pathlib.Path("/cache/token-mixers/emulator")

    def test_without_a_compiler_tests_are_skipped(self, monkeypatch):
        monkeypatch.setattr(build.shutil, "which", lambda name: None)
        with pytest.raises(unittest.SkipTest, match="needs g"), cuda_emulator.activate():
            pass

    def test_portable_context_switch(self):
        """The fibers of other processors than x86-64, in a process of its own as a process has one runtime."""
        code = "import test_cuda_emulator as t; assert t.run_bug('barrier_in_two_branches', t.i32(64)).sum() == 64"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=pathlib.Path(__file__).parent,
            env={**os.environ, "MIXERS_TEST_UCONTEXT": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


class TestArrays:
    def test_class_is_kept(self):
        with cuda_emulator.activate() as device:
            x = device.to_device(numpy.arange(6.0).reshape(2, 3))
            kept = [
                x[0],
                x[0, 0],
                x.T,
                x.reshape(3, 2),
                x.astype("float32"),
                x + 1,
                2 * x,
                x.sum(),
                x.sum(axis=0),
            ]
            kept += [
                -x,
                x > 1,
                x @ x.T,
                x.copy(),
                numpy.concatenate([x, x]),
                x.mean(axis=1),
                x.max(),
                x[x > 1],
            ]
            assert {type(array) for array in kept} == {cuda_emulator.DeviceArray}
            assert float(x.sum()) == 15.0

    def test_bfloat16(self):
        with cuda_emulator.activate() as device:
            x = device.to_device(numpy.ones(3, ml_dtypes.bfloat16))
            assert (x + x).dtype == ml_dtypes.bfloat16
            assert type(x * x) is cuda_emulator.DeviceArray

    def test_host_arrays_are_refused(self):
        with cuda_emulator.activate() as device:
            x, host = device.zeros((2, 3), "float32"), numpy.zeros((2, 3), "float32")
            for mix in (lambda: x + host, lambda: host * x, lambda: numpy.add(x, x, out=host)):
                with pytest.raises(TypeError, match="a host array was mixed with a device array"):
                    mix()
            with pytest.raises(TypeError, match="host array"):
                x += host
            with pytest.raises(TypeError, match="host array"):
                x[...] = host
            with pytest.raises(TypeError, match="host array"):
                numpy.concatenate([x, host])
            with pytest.raises(TypeError, match=r"numpy.linalg.*|numpy.norm was called"):
                numpy.linalg.norm(x)
            with pytest.raises(TypeError, match="to_host: array must be a device array"):
                device.to_host(host)
            assert (x + numpy.float32(1)).shape == (2, 3)

    def test_transfers_copy(self):
        with cuda_emulator.activate() as device:
            host = numpy.zeros(3)
            there = device.to_device(host)
            there += 1
            back = device.to_host(there)
            there += 1
            assert type(back) is numpy.ndarray
            assert (host.tolist(), back.tolist()) == ([0.0] * 3, [1.0] * 3)

    def test_empty_is_poisoned(self):
        with cuda_emulator.activate() as device:
            assert numpy.isnan(device.to_host(device.empty((2, 3), "float32"))).all()
            assert numpy.isnan(device.to_host(device.empty(3, ml_dtypes.bfloat16)).astype("float32")).all()
            assert device.to_host(device.empty((), "int32")) == -1
            assert device.empty((0, 3), "float64").shape == (0, 3)


def draw(shape, dtype="float32"):
    return numpy.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


class TestBuiltIns:
    def test_warp_collectives(self):
        def run(device):
            out = device.empty((7, 64), "int32")
            device.launch(Kernel("warp_collectives", BUILT_INS), (1,), (64,), (out,))
            return out

        lane = numpy.arange(64) % 32
        low = lane & ~7
        want = [
            low + 3,
            lane ^ 5,
            numpy.where(lane - 3 < low, lane, lane - 3),
            numpy.where(lane + 3 > low + 7, lane, lane + 3),
            numpy.full(64, sum(1 << i for i in range(0, 32, 3))),
            numpy.full(64, 1),
            numpy.full(64, sum(range(32))),
        ]
        numpy.testing.assert_array_equal(cuda_emulator.run_schedules(run), numpy.array(want))

    def test_block_votes(self):
        def run(device):
            out = device.empty((3, 64), "int32")
            device.launch(Kernel("block_votes", BUILT_INS), (1,), (64,), (out,))
            return out

        assert cuda_emulator.run_schedules(run)[:, 0].tolist() == [22, 1, 0]

    def test_sums(self):
        x = draw((96,))

        def run(device):
            out = device.empty((2, 96), "float32")
            device.launch(Kernel("sums", BUILT_INS), (1,), (96,), (device.to_device(x), out))
            return out

        warps, block = cuda_emulator.run_schedules(run)
        numpy.testing.assert_allclose(warps, x.reshape(3, 32).sum(1).repeat(32), rtol=1e-5)
        numpy.testing.assert_allclose(block, x.sum(), rtol=1e-5)
        assert len(set(block.tolist())) == 1

    @pytest.mark.parametrize(("storage", "dtype"), [("f16_t", "float16"), ("bf16_t", ml_dtypes.bfloat16)])
    def test_every_half_value(self, storage, dtype):
        every = numpy.arange(65536, dtype="uint16").view(dtype)
        with cuda_emulator.activate() as device, numpy.errstate(invalid="ignore"):
            wide, back = device.empty(65536, "float32"), device.empty(65536, dtype)
            args = (device.to_device(every), wide, i32(65536))
            device.launch(Kernel("widen", BUILT_INS, T=storage), (1,), (256,), args)
            device.launch(Kernel("narrow", BUILT_INS, T=storage), (1,), (256,), (wide, back, i32(65536)))
            numpy.testing.assert_array_equal(device.to_host(wide), every.astype("float32"))
            numpy.testing.assert_array_equal(device.to_host(back).astype("float32"), every.astype("float32"))

    @pytest.mark.parametrize(("storage", "dtype"), [("f16_t", "float16"), ("bf16_t", ml_dtypes.bfloat16)])
    def test_rounding_to_half(self, storage, dtype):
        rng = numpy.random.default_rng(3)
        edges = numpy.array([1.00390625, 1.01171875, 65519.0, 65520.0, 3e-8, -0.0], "float32")
        x = numpy.concatenate([rng.integers(0, 2**32, 20000, dtype="uint32").view("float32"), edges])
        with cuda_emulator.activate() as device, numpy.errstate(over="ignore", invalid="ignore"):
            y = device.empty(x.size, dtype)
            args = (device.to_device(x), y, i32(x.size))
            device.launch(Kernel("narrow", BUILT_INS, T=storage), (1,), (256,), args)
            numpy.testing.assert_array_equal(
                device.to_host(y).astype("float32"), x.astype(dtype).astype("float32")
            )

    @pytest.mark.parametrize("storage", ["float", "double"])
    @pytest.mark.parametrize(
        ("function", "definition", "relative"),
        [
            ("fast_exp2", numpy.exp2, 3e-7),
            ("fast_exp", numpy.exp, 6e-6),
            ("fast_sigmoid", scipy.special.expit, 6e-6),
            ("fast_softplus", lambda x: numpy.logaddexp(x, 0), 6e-6),
            ("value_softplus", lambda x: numpy.logaddexp(x, 0), 1e-6),
            ("value_gelu", lambda x: x * scipy.special.ndtr(x), 1e-5),
            ("slope_tanh", lambda x: numpy.cosh(x) ** -2, 1e-6),
            ("slope_sigmoid", lambda x: scipy.special.expit(x) * scipy.special.expit(-x), 1e-6),
        ],
    )
    def test_functions_of_common(self, function, definition, relative, storage):
        """Relative errors over the range in which no result leaves the normal numbers."""
        x = numpy.linspace(-12, 12, 4001, dtype="float32" if storage == "float" else "float64")
        with cuda_emulator.activate() as device:
            y = device.empty(x.shape, x.dtype)
            kernel = Kernel("apply", BUILT_INS, T=storage, FUNCTION=function)
            device.launch(kernel, (1,), (256,), (device.to_device(x), y, i32(x.size)))
            bound = relative if storage == "float" else 1e-13
            numpy.testing.assert_allclose(device.to_host(y), definition(x.astype("float64")), rtol=bound)

    @pytest.mark.parametrize(
        "function", ["fast_softplus", "value_softplus", "value_relu", "value_gelu", "slope_tanh"]
    )
    def test_nan_stays_nan(self, function):
        with cuda_emulator.activate() as device:
            y = device.zeros(1, "float32")
            kernel = Kernel("apply", BUILT_INS, T="float", FUNCTION=function)
            device.launch(
                kernel, (1,), (32,), (device.to_device(numpy.array([numpy.nan], "float32")), y, i32(1))
            )
            assert numpy.isnan(float(y[0]))
