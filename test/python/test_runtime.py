"""The thread team: every thread runs, barriers hold on a crowded machine, idle threads sleep, forks work."""

import ctypes
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.passmanager import PassManager

from parc.runtime import Team, library_path, team

# Every thread writes its number, then (after a barrier) adds what its right neighbour wrote, `steps` times.
RING = """
func.func private @parc_team_barrier()
func.func @ring(%tid: i64, %data: memref<?xi64>, %size: i64, %steps: i64) attributes {llvm.emit_c_interface} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1 : i64
  %me = arith.index_cast %tid : i64 to index
  %n = arith.index_cast %size : i64 to index
  %end = arith.index_cast %steps : i64 to index
  %next = arith.addi %me, %c1 : index
  %neighbour = arith.remui %next, %n : index
  memref.store %tid, %data[%me] : memref<?xi64>
  scf.for %i = %c0 to %end step %c1 {
    func.call @parc_team_barrier() : () -> ()
    %theirs = memref.load %data[%neighbour] : memref<?xi64>
    func.call @parc_team_barrier() : () -> ()
    %new = arith.addi %theirs, %one : i64
    memref.store %new, %data[%me] : memref<?xi64>
  }
  return
}
"""


class Ring:
    """The compiled `@ring` and its arguments."""

    def __init__(self, team: Team, steps: int) -> None:
        with ir.Context(), ir.Location.unknown():
            module = ir.Module.parse(RING)
            passes = "convert-scf-to-cf,convert-to-llvm,reconcile-unrealized-casts"
            PassManager.parse(f"builtin.module({passes})").run(module.operation)
            self.engine = ExecutionEngine(module, opt_level=2, shared_libs=[str(library_path())])
        self.entry = self.engine.raw_lookup("ring")
        assert self.entry
        self.team, self.steps = team, steps
        self.data = np.zeros(team.size, np.int64)
        self.pointer, self.zero = ctypes.c_void_p(self.data.ctypes.data), ctypes.c_int64(0)
        self.one, self.size = ctypes.c_int64(1), ctypes.c_int64(team.size)
        self.count = ctypes.c_int64(steps)
        values = [self.zero, self.pointer, self.pointer, self.zero, self.size, self.one, self.size, self.count]
        self.argv = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])

    def run(self) -> None:
        self.team.run(self.entry, self.argv)

    def expected(self) -> list[int]:
        size = self.team.size
        return [(i + self.steps) % size + self.steps for i in range(size)]


@pytest.mark.parametrize("nthreads", [1, 2, 3, 8])
def test_every_thread_runs_and_barriers_hold(nthreads: int) -> None:
    ring = Ring(Team(nthreads), steps=50)
    for _ in range(20):
        ring.run()
        assert ring.data.tolist() == ring.expected()


def test_concurrent_runs_take_turns() -> None:
    ring = Ring(Team(4), steps=10)

    def call() -> None:
        for _ in range(25):
            ring.run()

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert not any(caller.is_alive() for caller in callers)
    assert ring.data.tolist() == ring.expected()


def test_a_team_gets_on_where_cores_are_few_and_busy() -> None:
    # Far more threads than cores wait for each other, and every core has another program to run as well.
    cpus = os.cpu_count() or 1
    ring = Ring(Team(4 * cpus), steps=1000)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cpus)]
    try:
        # Waits that gave up their core only to the scheduler's clock would take minutes here.
        caller = threading.Thread(target=ring.run, daemon=True)
        caller.start()
        caller.join(timeout=120)
        assert not caller.is_alive()
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert ring.data.tolist() == ring.expected()


def test_idle_threads_sleep() -> None:
    ring = Ring(Team(8), steps=2)
    ring.run()
    time.sleep(0.05)
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(0.3)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_gets_its_own_threads() -> None:
    ring = Ring(Team(3), steps=5)
    ring.run()
    child = os.fork()
    if child == 0:
        ring.data[:] = 0
        ring.run()
        os._exit(0 if ring.data.tolist() == ring.expected() else 1)
    deadline = time.monotonic() + 30
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
        done, status = os.waitpid(child, os.WNOHANG)
    assert done, "the child hangs"
    assert os.waitstatus_to_exitcode(status) == 0
    ring.run()
    assert ring.data.tolist() == ring.expected()


@pytest.mark.parametrize(
    ("share", "cpus"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("", None)]
)
def test_a_share_of_the_cpus_is_respected(
    share: str, cpus: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(team, "CPU_SHARE", tmp_path / "missing")
    every = team.usable_cpus()
    (tmp_path / "cpu.max").write_text(share)
    monkeypatch.setattr(team, "CPU_SHARE", tmp_path / "cpu.max")
    assert team.usable_cpus() == (cpus or every)


def test_a_barrier_outside_a_run_returns() -> None:
    ctypes.CDLL(str(library_path())).parc_team_barrier()


def test_a_team_needs_a_thread() -> None:
    with pytest.raises(ValueError, match="at least one thread"):
        Team(0)
