"""Directives: each field has one on each scheduler or is refused there, and values survive its parser."""

import re
import shlex
from collections.abc import Iterator

import pytest

from jobscripts import JobSpec, SpecError, get_scheduler
from jobscripts.quoting import pbs_value, slurm_value

SPEC = JobSpec(command=("true",))
CPU_AND_GPU = (
    JobSpec(nodes=1, ranks_per_node=2),
    JobSpec(nodes=4, ranks_per_node=4, cpus_per_rank=2, gpus_per_node=4, memory_mib=1000),
)

# Field, its value, and the directives that say it; None where the scheduler has none and it is refused.
TABLE = [
    ("name", "engines", "--job-name=engines", "-N engines", "-N engines"),
    ("nodes", 3, "--nodes=3", "-l select=3:ncpus=1:mpiprocs=1", "-l nodes=3:ppn=1"),
    ("ranks_per_node", 4, "--ntasks-per-node=4", "-l select=1:ncpus=4:mpiprocs=4", "-l nodes=1:ppn=4"),
    ("ranks", 6, "--ntasks=6", "-l select=6:ncpus=1:mpiprocs=1", None),
    ("cpus_per_rank", 2, "--cpus-per-task=2", "-l select=1:ncpus=2:mpiprocs=1:ompthreads=2", "-l nodes=1:ppn=2"),
    ("gpus_per_node", 2, "--gpus-per-node=2", "-l select=1:ncpus=1:mpiprocs=1:ngpus=2", "-l nodes=1:ppn=1:gpus=2"),
    ("memory_mib", 4000, "--mem=4000M", "-l select=1:ncpus=1:mpiprocs=1:mem=4000mb", "-l mem=4000mb"),
    ("walltime", "1-01:00:05", "--time=25:00:05", "-l walltime=25:00:05", "-l walltime=25:00:05"),
    ("account", "p 1", '--account="p 1"', "-A 'p 1'", "-A 'p 1'"),
    ("queue", "short", "--partition=short", "-q short", "-q short"),
    ("qos", "high", "--qos=high", None, "-l qos=high"),
    (
        "constraint",
        "model=ice",
        "--constraint=model=ice",
        "-l select=1:ncpus=1:mpiprocs=1:model=ice",
        "-l nodes=1:ppn=1:model=ice",
    ),
    ("constraint", "a&b", '--constraint="a&b"', None, "-l nodes=1:ppn=1:a&b"),
    ("reservation", "R12", "--reservation=R12", "-q R12", "-q R12"),
    ("exclusive", True, "--exclusive", "-l place=scatter:excl", None),
    ("array", "0-9%2", "--array=0-9%2", "-J 0-9%2", "-t 0-9%2"),
    ("array", "0-8:4", "--array=0-8:4", "-J 0-8:4", None),
    ("array", "1,3", "--array=1,3", None, "-t 1,3"),
    ("array", "4", "--array=4", None, "-t 4"),
    (
        "dependency",
        ("afterok:1", "afterany:2:3"),
        "--dependency=afterok:1,afterany:2:3",
        "-W depend=afterok:1,afterany:2:3",
        "-W depend=afterok:1,afterany:2:3",
    ),
    ("mail", "a@b.org", "--mail-user=a@b.org", "-M a@b.org", "-M a@b.org"),
    ("stdout", "/a b", '--output="/a b"', "-o '/a b'", "-o '/a b'"),
    ("stderr", "/e%j", "--error=/e%%j", "-e /e%j", "-e /e%j"),
    ("stdout", "o{id}", "--output=o%j", None, "-o '$PBS_JOBID'"),
    ("requeue", True, "--requeue", "-r y", "-r y"),
    ("requeue", False, "--no-requeue", "-r n", "-r n"),
    ("extra", ("--x=1 -l y",), "--x=1 -l y", "--x=1 -l y", "--x=1 -l y"),
    ("notice_s", 60, "--signal=B:USR1@60", "", ""),
    (
        "components",
        CPU_AND_GPU,
        "hetjob",
        "-l select=1:ncpus=2:mpiprocs=2+4:ncpus=8:mpiprocs=4:ompthreads=2:ngpus=4:mem=1000mb",
        "-l nodes=1:ppn=2+4:ppn=8:gpus=4",
    ),
]


def cases() -> Iterator[tuple[str, str, object, str | None]]:
    for field, value, *lines in TABLE:
        for scheduler, line in zip(("slurm", "pbs", "torque"), lines, strict=True):
            yield scheduler, field, value, line


@pytest.mark.parametrize(("scheduler", "field", "value", "line"), list(cases()))
def test_every_field_is_said_or_refused(scheduler, field, value, line):
    fields = {field: value} | ({"walltime": "1h"} if field == "notice_s" else {})
    if field == "stdout" and scheduler == "torque" and "{id}" in str(value):
        fields = {field: "{id}"}
    spec = SPEC.replace(**fields)
    if line is None:
        with pytest.raises(SpecError) as caught:
            get_scheduler(scheduler).script(spec)
        assert caught.value.field in (field, "nodes")
        return
    assert not line or line in directives(get_scheduler(scheduler).script(spec))


def test_no_field_is_forgotten():
    import dataclasses

    elsewhere = {"command", "launch", "mail_on", "environment", "prologue", "epilogue", "workdir", "skip", "exit_file"}
    assert {field.name for field in dataclasses.fields(JobSpec)} == elsewhere | {row[0] for row in TABLE}


@pytest.mark.parametrize("field", [row[0] for row in TABLE])
def test_without_a_scheduler_what_only_one_can_give_is_refused(field):
    value = next(row[1] for row in TABLE if row[0] == field)
    fields = {field: value} | ({"walltime": "1h"} if field == "notice_s" else {})
    here = {"name", "nodes", "ranks_per_node", "ranks", "walltime", "stderr", "notice_s"}
    script = get_scheduler("mpiexec").script
    if field in here or (field == "stdout" and value == "/a b"):
        assert script(SPEC.replace(**fields))
    else:
        with pytest.raises(SpecError) as caught:
            script(SPEC.replace(**fields))
        assert caught.value.field == field


def directives(script: str) -> list[str]:
    return re.findall(r"^#(?:SBATCH|PBS) (.*)$", script, re.MULTILINE)


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "torque"])
def test_directives_come_before_the_first_command(scheduler):
    lines = get_scheduler(scheduler).script(SPEC.replace(nodes=2, name="a", walltime="1h")).splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith(("#SBATCH", "#PBS")))
    assert lines[0] == "#!/bin/bash"
    assert all(line.startswith("#") for line in lines[: last + 1])


@pytest.mark.parametrize(
    ("scheduler", "skip", "gone"),
    [
        ("slurm", "--ntasks-per-node", "ntasks"),
        ("pbs", "mpiprocs", "mpiprocs"),
        ("pbs", "place", "place"),
        ("torque", "-S", "-S"),
    ],
)
def test_directives_are_skipped_by_name(scheduler, skip, gone):
    assert gone in get_scheduler(scheduler).script(SPEC)
    assert gone not in get_scheduler(scheduler).script(SPEC.replace(skip=(skip,)))


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "torque"])
def test_a_misspelt_skip_is_refused(scheduler):
    with pytest.raises(SpecError, match="'--memm' is no directive of these"):
        get_scheduler(scheduler).script(SPEC.replace(skip=("--memm",)))


def test_a_failed_dependency_does_not_wait_for_ever():
    assert "--kill-on-invalid-dep=yes" in directives(
        get_scheduler("slurm").script(SPEC.replace(dependency=("afterok:1",)))
    )


def test_components_of_slurm_stand_apart_and_say_their_queue():
    parts = (CPU_AND_GPU[0], CPU_AND_GPU[1].replace(queue="gpu"))
    script = get_scheduler("slurm").script(SPEC.replace(components=parts, queue="cpu", walltime="1h", exclusive=True))
    first, second = script.split("#SBATCH hetjob\n")
    assert "--partition=cpu" in directives(first)
    assert {"--partition=gpu", "--nodes=4", "--gpus-per-node=4", "--exclusive"} <= set(directives(second))
    assert "--time=01:00:00" in directives(first)
    assert "--time" not in second


def test_names_that_only_one_scheduler_cannot_take():
    with pytest.raises(SpecError, match="name"):
        get_scheduler("pbs").script(SPEC.replace(name="two words"))
    with pytest.raises(SpecError, match="15 characters"):
        get_scheduler("torque").script(SPEC.replace(name="sixteen-letters-"))
    assert get_scheduler("slurm").script(SPEC.replace(name="two words"))


@pytest.mark.parametrize("path", ["ümlaut", "host:x"])
def test_paths_that_pbs_would_misread_are_refused(path):
    with pytest.raises(SpecError, match="stdout"):
        get_scheduler("pbs").script(SPEC.replace(stdout=path))


def test_slurm_fills_in_nothing_after_a_backslash():
    script = get_scheduler("slurm").script
    assert r'--output="a\\\\%b"' in directives(script(SPEC.replace(stdout="a\\%b")))
    with pytest.raises(SpecError, match="backslash"):
        script(SPEC.replace(stdout="a\\{id}"))


VALUES = [
    "plain",
    "two words",
    "it's",
    'the "best"',
    "back\\slash",
    "a#b",
    "  ",
    "$HOME",
    "a'b\"c\\d e#f",
    "ü",
    "%j",
    "-x",
    "",
]


@pytest.mark.parametrize("value", VALUES)
def test_sbatch_reads_what_was_meant(value):
    assert read_as_sbatch(slurm_value("stdout", value)) == value


@pytest.mark.parametrize("value", VALUES)
def test_qsub_reads_what_was_meant(value):
    # make_argv of qsub: quotes hold everything, a backslash outside of them escapes, as in a shell.
    assert shlex.split(f"-o {pbs_value('stdout', value)}") == ["-o", value]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x7f", "\x1b[0m"])
@pytest.mark.parametrize("quote", [slurm_value, pbs_value])
def test_no_directive_holds_control_characters(quote, value):
    with pytest.raises(SpecError, match="account"):
        quote("account", value)


def read_as_sbatch(text: str) -> str:
    """Read one word of a directive as sbatch does (seen with 22.05): a backslash escapes wherever it stands."""
    found, quote, characters = "", "", iter(text)
    for character in characters:
        if character == "\\":
            found += next(characters)
        elif quote:
            quote, found = ("", found) if character == quote else (quote, found + character)
        elif character in "'\"":
            quote = character
        elif character in " #":
            break
        else:
            found += character
    return found
