"""The jobs that a cluster is made of: what their commands say, and how wrong ones are refused."""

import shlex
import subprocess

import pytest

from hpc.cluster import shapes
from hpc.cluster.options import ClusterOptions, read_job, resolve
from jobscripts import JobSpec, Launch, SpecError, get_scheduler


def plan(scheduler="slurm", **fields):
    return shapes.make_plan(scheduler, fields, probing=False)


def command_of(spec):
    assert not isinstance(spec.command, str)
    return list(spec.command)


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "torque", "mpiexec"])
@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_each_shape_has_a_script_that_bash_can_read(scheduler, shape):
    made = plan(scheduler, nodes=2, ranks_per_node=4, walltime="1:00:00")
    if scheduler == "mpiexec":
        made = plan(scheduler, ranks_per_node=4, walltime="1:00:00")
    spec = {
        "together": lambda: made.together(name="heat"),
        "batch": lambda: made.batch(["my script.py", "it's"], name="heat"),
        "engines": lambda: made.engines(name="heat"),
        "controller": lambda: made.controller(name="heat"),
    }[shape]()
    text = get_scheduler(scheduler).script(spec)
    checked = subprocess.run(["/bin/bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "heat" in text
    assert ("'my script.py'" in text) is (shape == "batch")


def test_engines_are_the_ranks_of_the_job():
    spec = plan(nodes=2, ranks_per_node=4).engines(name="heat", label="slurm-0")
    assert command_of(spec) == ["ipengine", "--mpi", "--name=heat", "--label=slurm-0"]
    assert spec.launch == Launch()
    assert spec.total_ranks == 8


def test_jobs_of_this_python_find_the_mpi_library_that_it_has(monkeypatch):
    monkeypatch.setenv("MPI4PY_LIBMPI", "/opt/site/libmpi.so")
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    ours = shapes.make_plan("pbs", {"ranks": 2}, programs=shapes.Programs("/venv/bin/python"), probing=False)
    assert ours.engines(name="heat").environment == {"MPI4PY_LIBMPI": "/opt/site/libmpi.so"}
    assert plan("pbs", ranks=2).engines(name="heat").environment == {}, "a script for any machine says nothing of this"


def test_a_cluster_in_a_job_is_told_how_ranks_start_there():
    command = command_of(plan(nodes=2, ranks_per_node=4, launch="srun:pmix").batch(["a.py", "x y"], name="heat"))
    assert command[:6] == ["ipcluster", "run", "--ip", "*", "--port=0", "--name=heat"]
    assert command[6:8] == ["--group", "8"]
    assert shlex.split(command[8])[0] == "srun"
    assert "--mpi=pmix" in command[8]
    assert command[9:] == ["--", "a.py", "x y"]


def test_a_heterogeneous_job_has_a_group_for_each_component():
    parts = ({"nodes": 1, "ranks_per_node": 4, "gpus_per_node": 4}, {"nodes": 2, "ranks_per_node": 32})
    command = command_of(plan(components=parts, launch="srun:pmi2").together(name="mixed"))
    groups = [(command[n + 1], command[n + 2]) for n, word in enumerate(command) if word == "--group"]
    assert [n for n, _ in groups] == ["4", "64"]
    assert ["--het-group=0" in groups[0][1], "--het-group=1" in groups[1][1]] == [True, True]


def test_programs_may_be_modules_of_one_python():
    made = shapes.make_plan("slurm", {}, probing=False, programs=shapes.Programs("/opt/py/bin/python"))
    assert command_of(made.controller(name="x"))[:3] == ["/opt/py/bin/python", "-m", "hpc.cli.ipcontroller"]


@pytest.mark.parametrize(
    ("fields", "n", "shape"),
    [
        ({"ranks_per_node": 4}, 8, (2, 4, None)),
        ({"nodes": 2, "ranks_per_node": 4}, 12, (3, 4, None)),
        ({"nodes": 2}, 8, (2, 4, None)),
        ({"ranks_per_node": 4}, 6, (None, None, 6)),
        ({}, 5, (None, None, 5)),
        ({"ranks": 8}, 3, (None, None, 3)),
    ],
)
def test_more_engines_fill_nodes_as_the_first_ones_do(fields, n, shape):
    spec = JobSpec(**fields)
    resized = spec.replace(**shapes.for_ranks(spec, n))
    assert (resized.nodes, resized.ranks_per_node, resized.ranks) == shape
    assert resized.total_ranks == n


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"wall_time": "1h"}, "no such field"),
        ({"command": "x"}, "command"),
        ({"launch": "ssh"}, "launch"),
        ({"nodes": 0}, "nodes"),
        ({"components": ({"nodes": 1}, {"nodes": 2}), "nodes": 3}, "nodes"),
    ],
)
def test_wrong_fields_are_named(fields, said):
    with pytest.raises(SpecError, match=said):
        plan(**fields)


def test_shapes_refuse_what_they_cannot_be():
    with pytest.raises(SpecError, match="takes? the shape engines"):
        plan(array="0-3").together(name="x")
    with pytest.raises(SpecError, match="after --"):
        plan().batch([])
    with pytest.raises(SpecError, match="take kind='srun'"):
        plan(components=({"nodes": 1}, {"nodes": 1})).together(name="x")


def test_a_profile_of_the_site_fills_in_the_rest(tmp_path, monkeypatch):
    (tmp_path / "big.toml").write_text(
        'modules = ["mpi/1"]\n[defaults]\naccount = "a1"\n[launch]\nkind = "srun"\nmpi = "pmix"\n'
        "[limits]\nmax_nodes = 4\n"
    )
    monkeypatch.setenv("HPC_SITES_PATH", str(tmp_path))
    made = shapes.make_plan("slurm", {"nodes": 2, "ranks_per_node": 2}, site="big", probing=False)
    together = made.together(name="x")
    assert (together.account, together.launch) == ("a1", None), "one ipcluster, not one on each rank"
    assert "--mpi=pmix" in command_of(together)[-1]
    assert "module load mpi/1 || exit" in together.prologue
    assert made.engines(name="x").launch == Launch("srun", "pmix")
    with pytest.raises(SpecError, match="nodes: 8 are more"):
        made.engines(16, name="x")


def test_half_a_shape_may_be_the_sites(tmp_path, monkeypatch):
    (tmp_path / "big.toml").write_text('scheduler = "pbs"\ninterface = "lo"\n[defaults]\nranks_per_node = 8\n')
    monkeypatch.setenv("HPC_SITES_PATH", str(tmp_path))
    made = shapes.make_plan("slurm", {"nodes": 2}, site="big", probing=False)
    command = command_of(made.together(name="x", timeout_s=90.0))
    assert command[1:4] == ["--ip", "lo", "--port=0"]
    assert command[5:7] == ["--group", "16"]
    assert command[-1] == "--timeout=90"
    options = resolve(ClusterOptions(n=-1, ip="", launcher="slurm", site="big", job={"nodes": 2}), n_given=False)
    assert (options.n, options.ip) == (16, "lo")
    options = resolve(ClusterOptions(n=4, ip="", site="big"), n_given=True)
    assert (options.n, options.launcher) == (4, "pbs")


def test_options_say_how_many_and_where_the_controller_listens(tmp_path):
    def resolved(n=None, **fields):
        return resolve(ClusterOptions(n=-1 if n is None else n, ip="", **fields), n_given=n is not None)

    jobs = resolved(launcher="slurm", job={"nodes": 2, "ranks_per_node": 3, "walltime": "1:00:00"})
    assert (jobs.n, jobs.ip, jobs.job["walltime"]) == (6, "*", 3600)
    assert ClusterOptions.from_json(jobs.to_json()).job["nodes"] == 2
    assert resolved(5, launcher="slurm", job={"ranks_per_node": 3}).n == 5
    inside = resolved(launches=((4, "srun a"), (2, "srun b")))
    assert (inside.n, inside.ip, inside.launcher) == (6, "*", "mpiexec")
    assert ClusterOptions.from_json(inside.to_json()) == inside
    assert resolved(3).ip == "127.0.0.1"
    hosts = tmp_path / "hosts"
    hosts.write_text("a\nb\n")
    assert resolved(3, launcher="mpiexec", hostfile=str(hosts)).ip == "*"
    with pytest.raises(ValueError, match="hostfile is for"):
        resolved(3, hostfile=str(hosts))
    with pytest.raises(ValueError, match="keep is for jobs"):
        resolved(3, keep=True)


def test_a_job_of_options_is_read_as_it_was_written():
    fields, spec = read_job({"nodes": 2, "launch": "mpirun", "environment": {"A": "b c"}, "prologue": ("x", "y")})
    assert spec.environment == {"A": "b c"}
    assert fields["launch"] == "mpirun"
