"""What real schedulers said, by situation: one test body serves all of them.

OpenPBS and Slurm from `recorded/`. For Torque, of which there is no recording, XML as its manual and the parsers of
others describe it.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from jobscripts import Output, Scheduler, get_scheduler

RECORDED = Path(__file__).parent / "recorded"
OPENPBS = RECORDED / "openpbs-23.06"
SLURM = RECORDED / "slurm-22.05"


def errors(folder: Path) -> dict[str, Output]:
    """Return the recorded failures: command line -> output. Programs' names stand before what they wrote to stderr."""
    found = {}
    for part in re.split(r"^\$ ", (folder / "errors.txt").read_text(), flags=re.MULTILINE)[1:]:
        command, _, rest = part.partition("\n")
        said, _, code = rest.rpartition("rc=")
        stderr = "".join(re.findall(r"^(?:\w+: |slurm_load).*\n", said, flags=re.MULTILINE))
        stdout = "".join(line + "\n" for line in said.splitlines() if line + "\n" not in stderr)
        found[command] = Output(int(code), stdout, stderr)
    return found


def squeue(name: str) -> str:
    """Return lines of squeue in the columns that we ask for; the first recording had others, and no end."""
    first, *lines = (SLURM / name).read_text().splitlines()
    if "%L" in first:
        rows = [line.split("|") for line in lines]
        lines = ["|".join([row[0], row[1], row[2], row[4], "N/A", row[5]]) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def pbs_jobs(name: str) -> Output:
    return Output(0, (OPENPBS / name).read_text())


def torque_job(job_id: str, state: str, **more: str) -> str:
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in more.items())
    return f"<Job><Job_Id>{job_id}</Job_Id><Job_Name>x</Job_Name><job_state>{state}</job_state>{inside}</Job>"


def torque_data(*jobs: str) -> Output:
    return Output(0, f"<Data>{''.join(jobs)}</Data>")


@dataclass(frozen=True)
class Flavour:
    """One scheduler, and what it says when.

    Attributes
    ----------
    submitted : Output
        Of the submission of ``job_id``.
    states : dict
        Name of the situation -> (id, output of the query).
    nothing : Output
        Of a query for a job that is gone.
    down : Output
        Of a query while the scheduler cannot be reached.
    refused : dict
        Word of the remedy -> output of a submission.
    """

    scheduler: Scheduler
    submit: str
    query: str
    cancel: str
    job_id: str
    submitted: Output
    states: dict[str, tuple[str, Output]]
    nothing: Output
    down: Output
    refused: dict[str, Output] = field(default_factory=dict)


def slurm() -> Flavour:
    said = errors(SLURM)
    early, late = Output(0, squeue("squeue-more-early.txt")), Output(0, squeue("squeue-more-late.txt"))
    return Flavour(
        get_scheduler("slurm"),
        "sbatch",
        "squeue",
        "scancel",
        "33",
        Output(0, "33\n"),
        {
            "queued": ("43", early),
            "held": ("32", early),
            "active": ("33", early),
            "completed": ("30", late),
            "failed": ("31", late),
            "canceled": ("42", late),
            "timeout": ("34", late),
            "node_fail": ("47", late),
        },
        Output(0, ""),
        Output(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"),
        {
            "queue": said["sbatch --parsable -p nosuch job.sh"],
            "constraint": said["sbatch --parsable --constraint=gpu job.sh"],
            "array": said["sbatch --parsable --array=0-20000 job.sh"],
        },
    )


def pbs() -> Flavour:
    said = errors(OPENPBS)
    early, late = pbs_jobs("all-early.json"), pbs_jobs("all-late.json")
    lost = json.loads(late.stdout)
    lost["Jobs"]["3.b1"] |= {"Exit_status": -20, "comment": "Job run at Sun Nov 22 at 13:36 and failed"}
    return Flavour(
        get_scheduler("pbs"),
        "qsub",
        "qstat",
        "qdel",
        "0.b1",
        Output(0, "0.b1\n"),
        {
            "queued": ("1.b1", early),
            "held": ("2.b1", early),
            "active": ("0.b1", early),
            "completed": ("0.b1", late),
            "failed": ("3.b1", late),
            "canceled": ("7.b1", late),
            "timeout": ("6.b1", late),
            # Seen with `-r n` when the link to the first node was cut: Exit_status -20.
            "node_fail": ("3.b1", Output(0, json.dumps(lost))),
        },
        said["qstat -f -F json 999"],
        Output(255, "", "Connection refused\nqstat: cannot connect to server b1 (errno=15010)\n"),
        {
            "queue": said["qsub -q nosuch ok.sh"],
            "resource": said["qsub -l nosuch=3 ok.sh"],
            "walltime": said["qsub -q short -l walltime=10:00:00 ok.sh"],
        },
    )


def torque() -> Flavour:
    return Flavour(
        get_scheduler("torque"),
        "qsub",
        "qstat",
        "qdel",
        "12.head",
        Output(0, "12.head\n"),
        {
            name: ("12.head", torque_data(torque_job("12.head", state, **more)))
            for name, state, more in (
                ("queued", "Q", {"comment": "Not enough processors"}),
                ("held", "H", {}),
                ("active", "R", {"start_time": "100", "exec_host": "n1/0+n1/1+n2/0+n2/1"}),
                ("completed", "C", {"exit_status": "0", "comp_time": "200"}),
                ("failed", "C", {"exit_status": "7"}),
                ("canceled", "C", {"exit_status": "271"}),
                ("timeout", "C", {"exit_status": "-11"}),
                ("node_fail", "C", {"exit_status": "-4"}),
            )
        },
        Output(153, "", "qstat: Unknown Job Id Error 12.head\n"),
        Output(15, "", "pbs_iff: cannot connect to head:15001\nqstat: cannot connect to server head (errno=15096)\n"),
        {"queue": Output(170, "", "qsub: submit error (Unknown queue MSG=cannot locate queue)\n")},
    )


FLAVOURS = {"slurm": slurm, "pbs": pbs, "torque": torque}
