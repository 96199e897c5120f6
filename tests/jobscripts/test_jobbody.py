"""Job scripts, run: each as its scheduler would run it, with the variables that it would set."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobscripts import JobSpec, Launch, SpecError, body, get_scheduler
from jobscripts.exits import Ending, read_ending

SCHEDULERS = ("slurm", "pbs", "torque", "mpiexec")
DEADLINE_S = 20.0
SHOW = (sys.executable, "-c", "import os, sys; print(repr([sys.argv[1:], os.getcwd(), os.environ.get('A')]))")
# Says that it listens, and how it was ended. Time passes in small steps: bash hears of signals between commands.
LISTEN = "echo ready >ready; for ((i = 0; i < 400; i++)); do sleep 0.05; done"


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest) -> str:
    return request.param


class Script:
    """A job script that runs, or has run."""

    def __init__(self, scheduler: str, spec: JobSpec, directory: Path, **variables: str) -> None:
        self.exit_file = Path(spec.exit_file) if spec.exit_file else None
        self.directory = directory
        path = directory / "script"
        path.write_text(get_scheduler(scheduler).script(spec))
        variables = {"SLURM_JOB_ID": "1", "PBS_JOBID": "1.b", "PBS_O_WORKDIR": str(directory)} | variables
        self.process = subprocess.Popen(
            ["bash", str(path)],
            cwd=directory,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not (self.directory / name).exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, name
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; nothing that it started may be left then."""
        stdout, stderr = self.process.communicate(timeout=DEADLINE_S)
        assert not stderr or "Killed" in stderr or "Terminated" in stderr, stderr
        deadline = time.monotonic() + DEADLINE_S
        while self.left():
            assert time.monotonic() < deadline, f"left behind: {self.left()}"
            time.sleep(0.01)
        return self.process.returncode, stdout

    def left(self) -> list[str]:
        listed = subprocess.run(
            ["ps", "-s", str(self.process.pid), "-o", "stat=,pid=,args="], capture_output=True, text=True, check=False
        )
        return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]  # init reaps those

    @property
    def ending(self) -> Ending:
        assert self.exit_file is not None
        ending = read_ending(self.exit_file)
        assert ending is not None
        return ending


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    started: list[Script] = []

    def start_one(
        scheduler: str, directory: Path | None = None, variables: dict[str, str] | None = None, **fields: Any
    ) -> Script:
        spec = JobSpec(**({"exit_file": str((directory or tmp_path) / "exit")} | fields))
        started.append(Script(scheduler, spec, directory or tmp_path, **(variables or {})))
        return started[-1]

    yield start_one
    for script in started:
        if script.process.poll() is None:
            os.killpg(script.process.pid, signal.SIGKILL)
            script.process.wait()


def test_words_and_values_arrive_as_they_are(scheduler, start, weird_path):
    words = ("a b", "it's", '"', "\\", "$HOME", "`id`", "new\nline", "*", "", "ü", "!x", "#")
    value = "  two\nlines 'and' $quotes \\ "
    code, stdout = start(
        scheduler, weird_path, command=(*SHOW, *words), workdir=str(weird_path), environment={"A": value}
    ).end()
    assert code == 0
    assert stdout == repr([list(words), str(weird_path), value]) + "\n"
    assert read_ending(weird_path / "exit") is not None


def test_a_directory_with_a_newline_is_one_too(scheduler, start, tmp_path):
    directory = tmp_path / "two\nlines"
    directory.mkdir()
    code, stdout = start(scheduler, directory, command=SHOW, workdir=str(directory)).end()
    assert (code, stdout) == (0, repr([[], str(directory), None]) + "\n")


def test_a_job_works_where_it_was_submitted(scheduler, start, tmp_path):
    assert start(scheduler, command="pwd").end() == (0, f"{tmp_path}\n")


def test_a_directory_that_is_gone_ends_the_job(scheduler, start, tmp_path):
    script = start(scheduler, command="echo no", workdir=str(tmp_path / "gone"))
    stdout, stderr = script.process.communicate(timeout=DEADLINE_S)
    assert script.process.returncode == 1
    assert stdout == ""
    assert "gone" in stderr


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("supervised", [True, False])
def test_the_exit_status_is_that_of_the_command(code, supervised, scheduler, start):
    fields = {} if supervised else {"exit_file": ""}
    script = start(
        scheduler,
        command=("bash", "-c", f"echo works; exit {code}"),
        epilogue=("echo after",),
        prologue=("echo before",),
        **fields,
    )
    assert script.end() == (code, "before\nworks\nafter\n")
    if supervised:
        assert (script.ending.code, script.ending.reason) == (code, "")
        assert script.ending.started_s <= script.ending.ended_s <= time.time()


def test_a_prologue_that_ends_the_job_is_told(scheduler, start):
    script = start(scheduler, prologue=("exit 3",), command=("echo", "no"))
    assert script.end() == (3, "")
    assert script.ending.code == 3


def test_what_an_earlier_run_left_is_removed(scheduler, start, tmp_path):
    (tmp_path / "exit").write_text("code=0")
    assert start(scheduler, command=f"[[ ! -e {tmp_path}/exit ]]").end()[0] == 0


@pytest.mark.parametrize(
    ("name", "variable"), [("slurm", "SLURM_ARRAY_TASK_ID"), ("pbs", "PBS_ARRAY_INDEX"), ("torque", "PBS_ARRAYID")]
)
def test_each_element_of_an_array_has_an_exit_file(name, variable, start, tmp_path):
    start(name, command="exit 5", array="0-9", variables={variable: "4"}).end()
    ending = read_ending(tmp_path / "exit.4")
    assert ending is not None
    assert ending.code == 5


def test_the_command_knows_when_its_time_ends(scheduler, start):
    begun = time.time()
    _, stdout = start(scheduler, command="echo $HPC_WALLTIME_END", walltime=100).end()
    assert begun + 98 <= int(stdout) <= time.time() + 100


def test_interrupts_are_not_ignored(scheduler, start):
    python = (
        sys.executable,
        "-c",
        "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)",
    )
    assert start(scheduler, command=python).end() == (0, "True\n")


def test_the_end_reaches_the_command_which_decides_how_it_ends(scheduler, start):
    script = start(scheduler, command=f"trap 'echo heard; exit 5' TERM; {LISTEN}", walltime=1000)
    script.wait_for("ready")
    script.send(signal.SIGTERM)
    assert script.end() == (5, "heard\n")
    assert (script.ending.code, script.ending.reason) == (5, "terminated")


def test_an_end_at_the_walltime_is_called_so(scheduler, start):
    script = start(
        scheduler, command=(sys.executable, "-c", "import time; open('ready', 'w'); time.sleep(60)"), walltime=20
    )
    script.wait_for("ready")
    script.send(signal.SIGTERM)
    assert script.end()[0] == 143
    assert script.ending.reason == "walltime"


def test_an_end_during_the_prologue_is_no_success(scheduler, start):
    script = start(scheduler, prologue=(LISTEN,), command="echo no")
    script.wait_for("ready")
    script.send(signal.SIGTERM)
    assert script.end() == (143, "")
    assert (script.ending.code, script.ending.reason) == (143, "terminated")


def test_a_notice_during_the_prologue_does_not_end_the_job(scheduler, start):
    wait = "echo ready >ready; while [[ ! -e go ]]; do sleep 0.01; done"
    script = start(scheduler, prologue=(wait,), command="exit 3", walltime=1000, notice_s=10)
    script.wait_for("ready")
    script.send(signal.SIGUSR1)
    (script.directory / "go").touch()
    assert script.end()[0] == 3


@pytest.mark.parametrize("name", ["slurm"])
def test_a_notice_of_the_scheduler_is_handed_on(name, start):
    script = start(name, command=f"trap 'echo heard; exit 6' USR1; {LISTEN}", walltime=1000, notice_s=10)
    script.wait_for("ready")
    script.send(signal.SIGUSR1)
    assert script.end() == (6, "heard\n")
    assert script.ending.reason == ""


@pytest.mark.parametrize("name", ["pbs", "torque", "mpiexec"])
def test_without_a_notice_of_the_scheduler_the_script_has_a_timer(name, start):
    script = start(name, command=f"trap 'echo heard; exit 6' USR1; {LISTEN}", walltime=1000, notice_s=999)
    assert script.end() == (6, "heard\n")


def test_a_notice_goes_to_a_program_itself(scheduler, start):
    program = "import signal, time; signal.signal(10, lambda *_: exit(6)); open('ready', 'w'); time.sleep(60)"
    script = start(scheduler, command=(sys.executable, "-c", program), walltime=1000, notice_s=10)
    script.wait_for("ready")
    script.send(signal.SIGUSR1)
    assert script.end()[0] == 6


def test_text_that_does_not_listen_survives_notices(scheduler, start):
    script = start(
        scheduler,
        command="echo ready >ready; while [[ ! -e go ]]; do sleep 0.01; done; exit 9",
        walltime=1000,
        notice_s=10,
    )
    script.wait_for("ready")
    for _ in range(20):
        script.send(signal.SIGUSR1)
        time.sleep(0.005)
    (script.directory / "go").touch()
    assert script.end()[0] == 9
    assert script.ending.code == 9


def test_without_a_scheduler_the_script_enforces_its_walltime(start, monkeypatch):
    monkeypatch.setattr(body, "KILL_AFTER_S", 1)
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    script = start("mpiexec", command=(sys.executable, "-c", program), walltime=1)
    assert script.end()[0] == 137
    assert script.ending.reason == "walltime"


def test_a_plain_job_is_a_plain_script():
    script = get_scheduler("slurm").script(JobSpec(command=("python", "a.py"), nodes=2))
    assert script == "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n\npython a.py\n"


@pytest.mark.parametrize("command", ["", ()])
def test_a_job_without_a_command_is_refused(command, scheduler):
    with pytest.raises(SpecError, match="command"):
        get_scheduler(scheduler).script(JobSpec(command=command))


def test_mpi_reaches_the_other_nodes_of_pbs_through_pbs(start, tmp_path):
    (tmp_path / "bin").mkdir()
    tmrsh = tmp_path / "bin" / "pbs_tmrsh"
    tmrsh.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    tmrsh.chmod(0o755)
    environment = {name: "" for name in os.environ if name.startswith(("PRTE_MCA_plm", "OMPI_MCA_plm", "HYDRA"))}
    script = start(
        "pbs",
        nodes=2,
        command='[[ $PRTE_MCA_plm_ssh_agent == $HYDRA_LAUNCHER_EXEC ]] && $HYDRA_LAUNCHER_EXEC -x n2 "echo it" "a b"',
        variables={"PBS_EXEC": str(tmp_path), **environment},
    )
    assert script.end() == (0, "<n2></bin/sh><-c><echo it a b>")
    assert not list(tmp_path.glob(".tmrsh*"))


def test_ranks_are_started_by_the_launcher(start, tmp_path):
    mpirun = tmp_path / "mpirun"
    mpirun.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    mpirun.chmod(0o755)
    launch = Launch("mpirun", program=str(mpirun), extra=("--bind-to", "none"))
    script = start("torque", nodes=2, ranks_per_node=2, launch=launch, command=("./my prog", "1"))
    assert script.end() == (0, "<-n><4><--bind-to><none><./my prog><1>")


def test_without_a_scheduler_what_does_not_end_is_killed(start, monkeypatch):
    monkeypatch.setattr(body, "KILL_AFTER_S", 1)
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w'); time.sleep(60)"
    script = start("mpiexec", command=(sys.executable, "-c", program))
    script.wait_for("ready")
    script.send(signal.SIGTERM)
    assert script.end()[0] == 137
    assert script.ending.reason == "terminated"
