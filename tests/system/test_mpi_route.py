"""Data that the ranks of a group hand on among themselves: on one host when asked for, and by itself on three."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpc
from hpc.client import grouproute
from hpc.errors import CompositeError, EngineLost

from . import netns
from .conftest import Processes, wait_until
from .mpi_flavours import OWN, OWN_MPIRUN, environment

pytestmark = pytest.mark.needs_mpi
START_S = 30.0
np = pytest.importorskip("numpy")


def evaluate(view: hpc.DirectView, expression: str) -> Any:
    view.execute(f"evaluated = {expression}")
    return view["evaluated"]


# ---------------------------------------------------------------- one host


@pytest.fixture
def rc() -> Iterator[hpc.RemoteController]:
    with hpc.Cluster(n=3, launcher="mpiexec", name="route") as controller:
        yield controller


def test_every_operation_on_one_host(rc: hpc.RemoteController, monkeypatch: pytest.MonkeyPatch) -> None:
    link = rc._connected()
    assert not grouproute.applicable(link, rc.ids, 1 << 30), "memory is shared here"
    assert grouproute.applicable(link, rc.ids, 10, forced="mpi")
    assert not grouproute.applicable(link, [0, 0], 10, forced="mpi")
    v, w = rc[:], rc[[2, 0]]
    v.route = w.route = "mpi"
    whole = np.arange(1_000_003.0)

    v.push({"a": whole, "b": b"x" * 100_000, "c": "y", "d": [whole[::2], {"e": whole[:9]}]})
    found = evaluate(v, "(a.sum(), a.flags.writeable, len(b), c, d[0].shape, d[1]['e'].tolist())")
    assert found == [(whole.sum(), True, 100_000, "y", (500_002,), list(range(9)))] * 3

    result = w.scatter("x", whole, block=False)
    result.get(START_S)
    assert [row["route"] for row in result.metadata] == ["mpi"] * 2
    assert result.sent
    assert evaluate(w, "(len(x), x[0])") == [(500_002, 0.0), (500_001, 500_002.0)]
    gathered = w.gather("x")
    assert gathered.tobytes() == whole.tobytes()
    gathered[:] = 0

    for thing in ("some text", list(range(7)), (1, None), whole[:1], np.ma.masked_greater(np.arange(9), 4)):
        for dist in ("block", "cyclic"):
            v.scatter("x", thing, dist=dist)
            back = v.gather("x")
            assert type(back) is type(thing)
            assert repr(back) == repr(thing)
    matrix = np.arange(3000.0).reshape(50, 60)
    v.scatter("m", matrix, axis=1)
    assert v.gather("m").tolist() == matrix.tolist()

    assert v.reduce("rank") == 3
    assert rc[[2, 1]].reduce("rank", lambda left, right: (left, right)) == (2, 1)
    assert grouproute.reduce(link, [2, 1], "rank", lambda left, right: (left, right)).get(START_S) == (2, 1)
    assert v.reduce("a", "max").tolist() == whole.tolist()

    monkeypatch.setattr(grouproute, "hostname", lambda: "another host")  # so that pieces are worth it
    monkeypatch.setattr(grouproute, "PIECE_NBYTES", 999_999)
    v.push({"a": -whole})
    w.scatter("x", whole)
    assert evaluate(v, "a.sum()") == [-whole.sum()] * 3
    assert w.gather("x").tobytes() == whole.tobytes()


def test_a_rank_that_lacks_the_name_stalls_nobody(rc: hpc.RemoteController) -> None:
    link = rc._connected()
    rc[[0, 2]].push({"x": np.zeros(3)})
    for result in (
        grouproute.gather(link, rc.ids, "x", list, concatenate=True),
        grouproute.reduce(link, rc.ids, "x", "sum"),
    ):
        with pytest.raises(CompositeError, match="rank 1: NameError: name 'x' is not defined on engine 1") as caught:
            result.get(START_S)
        assert isinstance(caught.value[1], NameError)
    rc[1].push({"x": np.zeros(4)})
    with pytest.raises(CompositeError, match=r"not the same kind of array.* shape \(3,\) on ranks 0, 2"):
        grouproute.reduce(link, rc.ids, "x", "sum").get(START_S)
    assert evaluate(rc[:], "comm.allreduce(1)") == [3] * 3


def test_what_is_done_together_is_neither_aborted_nor_interrupted_in_parts(rc: hpc.RemoteController) -> None:
    link = rc._connected()
    rc[:].execute("import threading; go = threading.Event()")
    slow = rc[1].execute("print('begun', flush=True); go.wait(60)", block=False)
    wait_until(lambda: "begun" in slow.stdout, "rank 1 to begin")
    waiting = grouproute.reduce(link, rc.ids, "rank", "sum")
    wait_until(lambda: rc.queue_status()[0]["tasks"] == 1, "rank 0 to wait for rank 1")
    waiting.abort()
    rc[:].abort()
    rc[:].interrupt()
    assert waiting.get(START_S) == 3
    assert isinstance(slow.exception(START_S), KeyboardInterrupt)


NO_ROOM = """
from hpc.engine import collective
room = collective._room
def no_room(nbytes):
    raise MemoryError("no room")
collective._room = no_room
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_has_no_room_stops_all_before_data_move(rc: hpc.RemoteController, rank: int) -> None:
    v, whole = rc[:], np.arange(300_000.0)
    v.route = "mpi"
    rc[rank].execute(NO_ROOM)
    for send in (lambda: v.push({"x": whole}), lambda: v.scatter("x", whole)):
        with pytest.raises(CompositeError, match=f"rank {rank}: MemoryError: no room") as caught:
            send()
        assert isinstance(caught.value[rank], MemoryError)
    rc[rank].execute("collective._room = room")
    v.scatter("x", whole)
    assert v.gather("x").tobytes() == whole.tobytes()
    assert evaluate(v, "comm.allreduce(1)") == [3] * 3


DIES = """
import os, signal
from hpc.mpi.collectives import Team
def die(*_):
    {how}
Team.bcast = Team.scatterv = Team.gatherv = die
"""


def gather_from_a_rank_that_dies(rc: hpc.RemoteController, rank: int, how: str) -> CompositeError:
    """Have a rank die when all others are in MPI already, or about to be; return what the client hears."""
    v = rc[:]
    v.route = "mpi"
    v.execute("import numpy; x = numpy.zeros(1_000_000)")
    rc[rank].execute(DIES.format(how=how))
    result = v.gather("x", block=False)
    with pytest.raises(CompositeError) as caught:
        result.get(START_S)
    wait_until(lambda: not rc.ids, "the end of the group")
    return caught.value


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_while_data_move_ends_its_group(rc: hpc.RemoteController, rank: int) -> None:
    error = gather_from_a_rank_that_dies(rc, rank, "os.kill(os.getpid(), signal.SIGKILL)")
    assert all(isinstance(each, EngineLost) for each in error.errors.values())
    assert "SIGKILL" in str(error[rank])


def test_ranks_that_their_launcher_leaves_alone_do_not_wait_for_one_that_died(processes: Processes) -> None:
    controlling = processes.spawn(
        sys.executable, "-m", "hpc.cli.ipcontroller", "--ip", "127.0.0.1", "--port", "0", "--name", "alone"
    )
    file = processes.home / "clusters" / "alone" / "client.json"
    wait_until(lambda: file.exists() or controlling.poll() is not None, "the controller")
    ipengine = [sys.executable, "-m", "hpc.cli.ipengine", "--connection-file", str(file.with_name("engine.json"))]
    alone = ["-disable-auto-cleanup"] if OWN_MPIRUN.flavour == "MPICH" else []  # Open MPI always ends the others
    engines = processes.spawn(str(OWN.mpirun), *alone, "-n", "3", *ipengine, env=environment())
    with hpc.connect("alone") as rc:
        rc.wait_for_engines(3, timeout=START_S)
        error = gather_from_a_rank_that_dies(rc, 1, "os._exit(3)")
        assert set(error.errors) >= {0, 1}, "rank 2 may have done its part"
        assert "exited with status 3" in str(error[1])
        assert "engine 1 (rank 1" in str(error[0])
        rc.shutdown(controller=True)
    engines.communicate(timeout=START_S)
    controlling.communicate(timeout=START_S)


TWO_CLIENTS = """
import sys, numpy as np, hpc
me = sys.argv[1]
rng = np.random.default_rng(ord(me))
rc = hpc.connect("route")
last, results = {}, []
for i in range(200):
    targets = [int(t) for t in rng.permutation(3)[: rng.integers(2, 4)]]
    whole = np.full(int(rng.integers(1, 30_000)), float(i))
    name = f"{me}{i % 5}"
    parts = np.array_split(whole, len(targets))
    view = rc[targets]
    view.route = "mpi"
    results.append(view.scatter(name, whole, block=False))
    last |= {(name, target): (i, len(part)) for target, part in zip(targets, parts)}
for result in results:
    result.get(60)
for (name, target), (i, n) in last.items():
    found = rc[target][name]
    assert found.shape == (n,) and (found == i).all(), (name, target, i, n, found)
rc.close()
"""


def test_clients_that_scatter_at_the_same_time_never_mismatch(rc: hpc.RemoteController, processes: Processes) -> None:
    clients = [processes.spawn(sys.executable, "-c", TWO_CLIENTS, me) for me in "ab"]
    for client in clients:
        said, _ = client.communicate(timeout=100)
        assert client.returncode == 0, said
    assert evaluate(rc[:], "comm.allreduce(1)") == [3] * 3


# ---------------------------------------------------------------- three hosts

CLIENT = """
import json, sys
import numpy as np
import hpc
from hpc.client import grouproute

rc = hpc.connect("hosts", timeout=30)
rc.wait_for_engines(6, timeout=60)
(group,) = rc.groups
v, link = group.view, rc._connected()
whole = np.arange(3_000_017.0)
said = {"hosts": group.hosts, "mpi": group.mpi}
said["shm"] = v.apply(lambda: __import__("os").stat("/dev/shm").st_dev)
said["applicable"] = [grouproute.applicable(link, ids, 1 << 24) for ids in (group.ids, group.ids[:2], group.ids[1:3])]

def check(result):
    value = result.get(60)
    assert {row["route"] for row in result.metadata} == {"mpi"}
    return value

for ids in (group.ids, group.ids[::-2], group.ids[2:]):  # with and without a rank on this host
    v = rc[ids]
    check(v.scatter("x", whole, block=False))
    assert v.apply(lambda: x.sum()) == [part.sum() for part in np.array_split(whole, len(ids))]
    back = check(v.gather("x", block=False))
    assert back.tobytes() == whole.tobytes()
    check(v.push({"y": whole, "z": {"deep": [whole[::3]]}}, block=False))
    assert v.apply(lambda: (y.sum(), z["deep"][0].sum())) == [(whole.sum(), whole[::3].sum())] * len(ids)
    total = check(v.reduce("y", "sum", block=False))
    assert np.array_equal(total, whole * len(ids))
    assert {row["route"] for row in v.push({"k": 1}, block=False).metadata} == {"inline"}
said["ok"] = True
print(json.dumps(said))
rc.shutdown(controller=True)
rc.close()
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[netns.Hosts]:
    reason = netns.missing()
    if reason:
        pytest.skip(f"three hosts cannot be made here: {reason}")
    made = netns.Hosts(3, tmp_path)
    yield made
    made.close()


def start_engines(hosts: netns.Hosts, port: int, per_host: int) -> tuple[list[str], dict[str, str]]:
    """Return the mpirun that starts engines on all hosts, and its environment."""
    bin_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = environment(PATH=bin_first)
    del variables["PRTE_MCA_rmaps_default_mapping_policy"]  # said on the command line
    agent = hosts.agent(variables)
    variables |= {"HYDRA_LAUNCHER": "rsh", "HYDRA_LAUNCHER_EXEC": agent}
    variables |= {"PRTE_MCA_plm_ssh_agent": agent, "OMPI_MCA_plm_rsh_agent": agent}  # of Open MPI 5, and of 4
    places = ",".join(f"{name}:{per_host}" for name in hosts.names)
    is_open_mpi = OWN_MPIRUN.flavour == "Open MPI"
    where = ["--host", places, "--map-by", f"ppr:{per_host}:node:oversubscribe"] if is_open_mpi else ["-hosts", places]
    ipengine = [sys.executable, "-m", "hpc.cli.ipengine", f"--controller-ip={hosts.addresses['h1']}"]
    n = per_host * len(hosts.names)
    return [str(OWN.mpirun), *where, "-n", str(n), *ipengine, f"--controller-port={port}"], variables


def test_a_group_that_spans_hosts_hands_data_on_itself(hosts: netns.Hosts, processes: Processes) -> None:
    ipcontroller = [sys.executable, "-m", "hpc.cli.ipcontroller", "--ip", "*", "--port", "0", "--name", "hosts"]
    controlling = processes.spawn(*hosts.on("h1", *ipcontroller))
    file = processes.home / "clusters" / "hosts" / "client.json"
    wait_until(lambda: file.exists() or controlling.poll() is not None, "the controller")
    assert controlling.poll() is None, controlling.communicate()[0]
    port = int(json.loads(file.read_text())["addresses"][0].rpartition(":")[2])
    command, variables = start_engines(hosts, port, 2)
    engines = processes.spawn(*hosts.on("h1", *command), env=variables)
    client = processes.spawn(*hosts.on("h1", sys.executable, "-c", CLIENT))
    said, _ = client.communicate(timeout=100)
    if client.returncode != 0:
        engines.terminate()
        pytest.fail(f"{said}\nthe engines said:\n{engines.communicate(timeout=30)[0]}")
    answer = json.loads(said.splitlines()[-1])
    assert answer["ok"]
    assert answer["hosts"] == ["h1", "h2", "h3"]
    assert len(set(answer["shm"])) == 3, "each host has a /dev/shm of its own"
    assert answer["applicable"] == [True, False, True]
    engines.communicate(timeout=30)
    controlling.communicate(timeout=30)
    wait_until(lambda: not processes.pids(), f"the end of {processes.pids()}")
