"""Where engines are: the picture for people, what the main thread calls, and processes whose interpreter is held."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from hpc.engine import lookout
from hpc.engine.lookout import Lookout, describe_error
from hpc.security.peek import peek
from hpc.wire.stacks import SILENT, Stacks, numbers, user_frames

SOLVER = ("/home/me/solver.py", 112, "step", "comm.Allreduce(a, b)")


def row(number, rank, size=4, **more):
    return {"id": number, "rank": rank, "size": size, "group": "g", "host": "h", "pid": 1, "state": "idle"} | more


def test_ranks_in_the_same_place_stand_together():
    inside = {"state": "running", "frames": [SOLVER], "call": "Allreduce", "mpi": True, "since": time.time() - 12}
    rows = [row(rank, rank, **inside) for rank in (0, 2, 3)]
    rows.append(row(1, 1, failure="ValueError at solver.py:108: no convergence"))
    stacks = Stacks(rows)
    assert stacks.summary == (
        "ranks 0,2,3 in Allreduce at solver.py:112; rank 1 raised ValueError at solver.py:108: no convergence"
    )
    assert str(stacks) == (
        f"{stacks.summary}\n\nranks 0,2,3, for 12 s:\n"
        '  File "/home/me/solver.py", line 112, in step\n    comm.Allreduce(a, b)'
    )
    assert sorted(stacks) == [0, 1, 2, 3]
    assert stacks[0][-1].lineno == 112
    assert not stacks[1]


def test_groups_and_single_engines():
    single = [row(7, 0, 1, state=SILENT, group="a"), row(8, 0, 1, group="b")]
    assert Stacks(single).summary == "engine 7 does not answer; engine 8 is idle"
    both = Stacks([*single, row(0, 0, 2, state="stopped"), row(1, 1, 2)])
    assert both.summary.splitlines() == [
        "group of engines 0,1: rank 0 is stopped by a signal; rank 1 is idle",
        "engine 7 does not answer; engine 8 is idle",
    ]
    assert str(Stacks([])) == "no engines"


def test_numbers():
    assert numbers([3, 1, 2, 9, 6, 7]) == "1-3,6,7,9"


def test_the_engines_own_frames_are_left_out():
    own = ("/x/hpc/engine/work.py", 1, "_run_calls", "")
    shell = ("/x/hpc/engine/shell.py", 1, "execute", "")
    assert user_frames([own, shell, SOLVER, shell]) == [SOLVER, shell]
    assert user_frames([shell, SOLVER]) == []


class Inside:
    """A thread that sits in a call, and its frame."""

    def __init__(self, code, **names):
        self.gate = threading.Event()
        space = {"gate": self.gate, "lock": threading.Lock(), **names}
        space["lock"].acquire()
        self.lock = space["lock"]
        self.thread = threading.Thread(target=exec, args=(compile(code, "<cell>", "exec"), space))

    def __enter__(self):
        self.thread.start()
        while True:
            frame = sys._current_frames().get(self.thread.ident)
            if frame is not None and frame.f_code.co_filename == "<cell>" and frame.f_lasti > 0:
                called = lookout._called(frame.f_code, frame.f_lasti)
                if called:
                    return frame, called
            time.sleep(0.001)

    def __exit__(self, *_):
        self.lock.release()
        self.thread.join()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("lock.acquire()", ["lock", "acquire"]),
        ("def f(a):\n    here = a\n    return [1, here.acquire(True,\n        5)]\nf(lock)", ["here", "acquire"]),
        ("box.inner.acquire()", ["box", "inner", "acquire"]),
    ],
)
def test_what_a_frame_calls_is_told_without_its_source(code, name):
    class Box:
        pass

    inside = Inside(code, box=Box)
    Box.inner = inside.lock
    with inside as (_, called):
        assert called == name


def test_the_last_failure_is_kept_and_what_the_engine_held_for_it_is_not():
    seen = Lookout()
    try:
        raise ValueError("no convergence\nat all")
    except ValueError as error:
        seen.note(error)
    assert describe_error(seen.error).startswith("ValueError at test_stacks.py:")
    assert describe_error(seen.error).endswith(": no convergence")
    seen.release()
    assert seen.error is not None


@pytest.mark.skipif(sys.platform != "linux", reason="needs memfd and /proc")
def test_a_process_whose_interpreter_is_held_shows_its_stack():
    code = (
        "import ctypes\nfrom hpc.security.peek import prepare\nprepare()\n"
        "def held():\n    ctypes.PyDLL(None).pause()\nprint('ready', flush=True)\nwhile True:\n    held()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        found = None
        while found is None or found[1][-1][2] != "held":
            found = peek(process.pid)
        assert found[0] == "held"
        assert [frame[2] for frame in found[1]] == ["<module>", "held"]
        process.send_signal(signal.SIGSTOP)
        while peek(process.pid) != ("stopped", []):
            time.sleep(0.001)
    finally:
        process.kill()
        process.communicate()
    assert peek(process.pid) is None
    assert peek(1) is None  # it was not prepared, and gets no signal
