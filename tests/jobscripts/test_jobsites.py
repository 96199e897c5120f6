"""Profiles of sites: data that is checked when it is read, and applied so that a person's own word wins."""

from pathlib import Path

import pytest

from jobscripts import JobSpec, Launch, Profile, SpecError, get_scheduler
from jobscripts.sites import profile_names, site_folders

SITE = """
scheduler = "slurm"
modules = ["gcc/12", "openmpi 5"]
prologue = ["ulimit -c 0"]
interface = "ib0"
extra = ["--mem-bind=local"]
skip = ["--mem"]

[launch]
kind = "srun"
mpi = "pmix"

[defaults]
account = "p123"
queue = "standard"
walltime = "0:30:00"
ranks_per_node = 32
mail_on = ["fail"]
environment = { OMP_NUM_THREADS = "1", A = "site" }

[limits]
max_array_size = 10
max_walltime = "24:00:00"
max_nodes = 8
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "config" / "hpc" / "sites"
    folder.mkdir(parents=True)
    (folder / "big.toml").write_text(SITE)
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def site(environ: dict[str, str]) -> Profile:
    return Profile.load("big", environ)


def test_what_a_job_leaves_open_is_filled_in(site):
    spec = site.apply(JobSpec(command=("a",), nodes=2, queue="short", environment={"A": "mine"}, extra=("--x",)))
    assert (spec.account, spec.queue, spec.walltime_s) == ("p123", "short", 1800)
    assert spec.ranks_per_node == 32
    assert spec.environment == {"OMP_NUM_THREADS": "1", "A": "mine"}
    assert spec.extra == ("--mem-bind=local", "--x")
    assert spec.launch == Launch("srun", "pmix")
    assert spec.mail_on == ("fail",)
    script = get_scheduler(site.scheduler).script(spec)
    assert "module load gcc/12 || exit\nmodule load 'openmpi 5' || exit\nulimit -c 0\n" in script
    assert "srun --export=ALL --mpi=pmix --nodes=2 --ntasks=64 --ntasks-per-node=32 a\n" in script


def test_half_a_shape_of_the_site_does_not_contradict_that_of_a_person(site):
    assert site.apply(JobSpec(command=("a",), ranks=7)).total_ranks == 7
    assert site.apply(JobSpec(command=("a",), components=(JobSpec(nodes=1),))).total_ranks == 1


def test_one_rank_needs_no_launcher(site):
    plain = Profile(launch=site.launch)
    assert plain.apply(JobSpec(command=("a",))).launch is None
    assert site.apply(JobSpec(command="text", nodes=2)).launch is None


@pytest.mark.parametrize(
    ("field", "fields"), [("nodes", {"nodes": 9}), ("walltime", {"walltime": "25:00:00"}), ("array", {"array": "0-10"})]
)
def test_limits_are_told_before_anything_waits(field, fields, site):
    with pytest.raises(SpecError, match="of big") as caught:
        site.apply(JobSpec(command=("a",), **fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("scheduler = 3", "scheduler"),
        ("modules = 'gcc'", "modules"),
        ("colour = 'red'", "colour"),
        ("launch = 'srun'", "launch"),
        ("[launch]\nkind = 'ssh'", "launch"),
        ("[launch]\nflavour = 'srun'", "launch.flavour"),
        ("[limits]\nmax_nods = 3", "limits.max_nods"),
        ("[limits]\nmax_walltime = 'long'", "max_walltime"),
        ("[defaults]\nnode = 3", "defaults.node"),
        ("[defaults]\nnodes = 'three'", "defaults.nodes"),
        ("[defaults]\nextra = ['--x']", "defaults.extra"),
        ("[defaults]\ncommand = ['x']", "defaults.command"),
        ("scheduler = ", "site"),
    ],
)
def test_what_a_profile_cannot_be_is_refused_by_name(text, key, tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        Profile.load(str(path))
    assert caught.value.field == key


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("colour = 'red'")
    with pytest.raises(SpecError, match=r"my\.toml: a profile has no such key; there are: scheduler"):
        Profile.load(str(path))


def test_a_profile_that_is_not_there(environ):
    with pytest.raises(SpecError, match="there is no profile 'bog' in .*; there are: big"):
        Profile.load("bog", environ)


def test_own_profiles_hide_those_of_the_system(environ, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "big.toml").write_text("scheduler = 'pbs'")
    (mine / "other.toml").write_text("")
    environ["HPC_SITES_PATH"] = str(mine)
    assert list(profile_names(environ)) == ["big", "other"]
    assert Profile.load("big", environ).scheduler == "pbs"
    assert site_folders(environ)[0] == mine
    assert str(site_folders(environ)[-1]) == "/etc/hpc/sites"
