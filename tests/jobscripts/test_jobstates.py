"""What schedulers have printed, read: each line of each recording."""

import itertools
import time

import pytest
from recordings import OPENPBS, SLURM, errors, pbs_jobs, squeue, torque_data, torque_job

from jobscripts import JobStatus, Output, QueryError, State, get_scheduler
from jobscripts.hosts import expand_hosts
from jobscripts.slurm_states import read_squeue, read_time
from jobscripts.states import summed_up

SLURM_IDS = [str(number) for number in range(1, 48)]


def words(statuses):
    return {job_id: f"{status.state} {status.reason}".strip() for job_id, status in statuses.items()}


def test_the_first_recording_of_slurm():
    ids = [str(number) for number in range(1, 10)]
    assert words(read_squeue(squeue("squeue-early.txt"), ids)) == {
        "1": "active",
        "2": "queued Priority",
        "3": "held JobHeldUser",
        "4": "queued Priority",
        "5": "queued Dependency",
        "6": "queued",
        "7": "queued Priority",
        "8": "queued Priority",
        "9": "unknown not in the queue",
    }
    assert words(read_squeue(squeue("squeue-late.txt"), ids)) == {
        "1": "completed",
        "2": "completed",
        "3": "canceled",
        "4": "failed NonZeroExitCode",
        "5": "queued DependencyNeverSatisfied",
        "6": "completed",
        "7": "timeout TimeLimit",
        "8": "canceled",
        "9": "unknown not in the queue",
    }


def test_the_second_recording_of_slurm():
    early = read_squeue(squeue("squeue-more-early.txt"), SLURM_IDS[29:])
    late = read_squeue(squeue("squeue-more-late.txt"), SLURM_IDS[29:])
    assert words(early)["41"] == "active suspended"
    assert words(early)["44"] == "queued PartitionTimeLimit"
    assert words(early)["46"].startswith("queued Nodes required for job are DOWN")
    assert words(early)["45"] == "queued BeginTime"  # it was started again
    assert words(late)["45"] == "active"
    assert words(late)["47"] == "node_fail NodeDown"
    assert words(late)["37"] == "canceled DependencyNeverSatisfied"
    assert early["39"].state is State.ACTIVE  # heterogeneous
    assert early["39"].nodes == ("n2", "n3")
    assert list(early["39"].elements) == [0, 1]
    assert {index: str(element.state) for index, element in early["38"].elements.items()} == {
        0: "completed",
        1: "completed",
        2: "active",
        3: "active",
    }
    assert early["38"].state is State.ACTIVE
    assert late["38"].state is State.FAILED  # one element did
    assert late["38"].exit_code is None
    assert early["33"].end_s - early["33"].start_s == 1800
    assert early["43"].start_s is not None  # expected
    assert early["43"].end_s is None


def test_elements_of_an_array_are_found_by_their_own_ids():
    found = read_squeue(squeue("squeue-more-early.txt"), ["38_2", "38_0", "38_9", "39+1"])
    assert [str(status.state) for status in found.values()] == ["active", "completed", "unknown", "active"]


def test_elements_that_wait_together_are_one_line():
    text = "12_[3-5%2]|PENDING|Priority|N/A|N/A|\n12_0|COMPLETED|None|N/A|N/A|n1\n"
    assert read_squeue(text, ["12"])["12"].state is State.QUEUED


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        *zip(
            (
                "CONFIGURING",
                "COMPLETING",
                "OUT_OF_MEMORY",
                "PREEMPTED",
                "BOOT_FAIL",
                "DEADLINE",
                "REQUEUE_HOLD",
                "STAGE_OUT",
            ),
            ("queued", "active", "failed", "preempted", "node_fail", "timeout", "held", "active"),
            strict=True,
        ),
        ("SPECIAL_EXIT", "held"),
        ("REVOKED", "canceled"),
        ("NONSENSE", "unknown"),
    ],
)
def test_states_of_slurm_that_were_not_recorded(raw, state):
    status = read_squeue(f"7|{raw}|None|N/A|N/A|\n", ["7"])["7"]
    assert status.state is State(state)
    if state == "unknown":
        assert "NONSENSE" in status.reason


def test_banners_between_the_lines_do_not_matter():
    text = "*** maintenance | tomorrow ***\n7|RUNNING|None|N/A|N/A|n1\nslurm_load_jobs: retrying\n"
    assert read_squeue(text, ["7"])["7"].state is State.ACTIVE


def test_the_archive_of_slurm():
    rows = [line.split("|") for line in (SLURM / "sacct.txt").read_text().splitlines()[1:]]
    text = "".join("|".join([row[0], row[1], row[2], row[5], row[6], row[7], row[8]]) + "\n" for row in rows)
    found = get_scheduler("slurm").parse_evidence(Output(0, text), [str(number) for number in range(1, 10)])
    assert {job_id: (str(status.state), status.exit_code) for job_id, status in found.items()} == {
        "1": ("completed", 0),
        "2": ("completed", 0),
        "4": ("failed", 7),
        "6": ("completed", 0),
        "7": ("timeout", None),
        "8": ("canceled", None),
    }
    assert found["8"].nodes == ()
    assert found["6"].elements[2].reason == ""  # it waited for its turn, which is over


def test_a_signal_is_said_as_a_shell_does():
    line = "7|FAILED|0:9|2026-11-22T13:37:31|2026-11-22T13:37:35|None|n1\n"
    assert get_scheduler("slurm").parse_evidence(Output(0, line), ["7"])["7"].exit_code == 137


def test_times():
    assert read_time("1795354650") == 1795354650
    assert read_time("2026-11-22T13:37:31") == time.mktime((2026, 11, 22, 13, 37, 31, 0, 0, -1))
    assert read_time("N/A") is None


def read(name, *ids):
    return get_scheduler("pbs").parse_status(pbs_jobs(name), list(ids))


def test_the_first_recording_of_openpbs():
    ids = ["0.b1", "1.b1", "2.b1", "3.b1", "4.b1", "5[].b1", "9.b1"]
    found = read("all-early.json", *ids)
    assert words(found) == {
        "0.b1": "active",
        "1.b1": "queued Can Never Run: Not enough total nodes available",
        "2.b1": "held held (u)",
        "3.b1": "active",
        "4.b1": "held held (s), depends on afterok:3.b1@b1",
        "5[].b1": "queued Not enough free nodes available",
        "9.b1": "unknown not in the queue",
    }
    assert found["0.b1"].nodes == ("b1", "b2")
    assert found["0.b1"].end_s - found["0.b1"].start_s == 600


def test_the_last_recording_of_openpbs():
    found = read("all-late.json", *(f"{number}.b1" for number in (0, 2, 3, 4, 6, 7)), "5[].b1")
    assert {job_id: (str(status.state), status.exit_code) for job_id, status in found.items()} == {
        "0.b1": ("completed", 0),
        "2.b1": ("canceled", None),
        "3.b1": ("failed", 7),
        "4.b1": ("canceled", None),
        "6.b1": ("timeout", None),
        "7.b1": ("canceled", None),
        "5[].b1": ("completed", 0),
    }
    assert "depended on" in found["4.b1"].reason
    assert found["6.b1"].end_s - found["6.b1"].start_s == 22


def test_an_array_of_openpbs_is_what_its_elements_are():
    found = read("array-subjobs.json", "5[].b1")["5[].b1"]
    assert found.state is State.QUEUED
    assert list(found.elements) == [0, 1, 2]
    text = pbs_jobs("array-subjobs.json").stdout.replace('"job_state":"Q"', '"job_state":"F"', 4)
    failed = text.replace('"substate":10', '"substate":93, "Exit_status":7', 4)
    # The parent says Exit_status 0, whatever its elements did.
    found = get_scheduler("pbs").parse_status(Output(0, failed), ["5[].b1"])["5[].b1"]
    assert (found.state, found.exit_code) == (State.FAILED, 7)


def pbs_job(**fields):
    import json

    return Output(0, json.dumps({"Jobs": {"1.b": fields}}))


@pytest.mark.parametrize(
    ("fields", "state", "code"),
    [
        ({"Exit_status": 271, "substate": 91}, State.CANCELED, 143),
        ({"Exit_status": 271, "substate": 93}, State.FAILED, 143),
        ({"Exit_status": 0, "substate": 93}, State.CANCELED, None),
        ({"Exit_status": 0, "substate": 93, "array": "True"}, State.FAILED, None),
        ({"Exit_status": 0, "substate": 92}, State.COMPLETED, 0),
        ({"Exit_status": -20, "substate": 93}, State.NODE_FAIL, None),
        ({"Exit_status": -27, "substate": 93}, State.FAILED, None),
        ({"Exit_status": -3, "substate": 93}, State.FAILED, None),
        ({"Exit_status": 9, "substate": "93"}, State.FAILED, 9),
        ({}, State.CANCELED, None),
    ],
)
def test_how_jobs_of_pbs_end(fields, state, code):
    status = get_scheduler("pbs").parse_status(pbs_job(job_state="F", **fields), ["1.b"])["1.b"]
    assert (status.state, status.exit_code) == (state, code)


@pytest.mark.parametrize(
    ("letter", "state"),
    [("W", "queued"), ("T", "queued"), ("S", "active"), ("U", "active"), ("E", "active"), ("?", "unknown")],
)
def test_states_of_pbs_that_were_not_recorded(letter, state):
    assert get_scheduler("pbs").parse_status(pbs_job(job_state=letter), ["1.b"])["1.b"].state is State(state)


def test_an_expected_start_of_pbs():
    output = pbs_job(job_state="Q", estimated={"start_time": "Sun Nov 22 14:00:00 2026"})
    expected = get_scheduler("pbs").parse_status(output, ["1.b"])["1.b"].start_s
    assert expected == time.mktime((2026, 11, 22, 14, 0, 0, 0, 0, -1))


@pytest.mark.parametrize("value", ["007", "1e", "+5", ".5", "-", "0x1F", "1_000", "nan"])
def test_numbers_that_are_none_do_not_spoil_the_answer(value):
    text = pbs_jobs("running.json").stdout
    spoilt = text.replace('"PBS_O_HOME":"/home/user1"', f'"X":{value}')
    assert spoilt != text
    assert get_scheduler("pbs").parse_status(Output(0, spoilt), ["0.b1"])["0.b1"].state is State.ACTIVE


def test_a_server_is_found_by_its_short_name_too():
    output = Output(0, pbs_jobs("running.json").stdout.replace("0.b1", "0.b1.site.org"))
    assert get_scheduler("pbs").parse_status(output, ["0.b1"])["0.b1"].state is State.ACTIVE


def test_errors_of_openpbs():
    said = errors(OPENPBS)
    pbs = get_scheduler("pbs")
    for command in ("qdel 999", "qdel 0.b1"):
        pbs.parse_cancel(said[command])
    for command in ("qstat -f -F json 999", "qstat -f -F json 0.b1"):
        assert pbs.parse_status(said[command], ["999.b1"])["999.b1"].state is State.UNKNOWN
    for command in ("qsub -q nosuch ok.sh", "qsub -l nosuch=3 ok.sh", "qsub -q short -l walltime=10:00:00 ok.sh"):
        error = pbs.parse_error(said[command])
        assert not error.transient
        assert ":" in str(error)


def test_errors_of_slurm():
    said = errors(SLURM)
    slurm = get_scheduler("slurm")
    assert slurm.parse_submit(said["sbatch --parsable -t 10000 job.sh"]) == "14"
    slurm.parse_cancel(said["scancel 999"])
    with pytest.raises(QueryError):
        slurm.parse_status(said["squeue -h -j 999 -o %T"], ["999"])
    dry = slurm.parse_dry_run(said["sbatch --test-only job.sh"])
    assert dry.start_s == time.mktime((2026, 11, 27, 7, 44, 23, 0, 0, -1))
    assert slurm.parse_error(Output(1, "", "sbatch: error: Slurm temporarily unable to accept job, sleeping")).transient


def test_torque():
    output = torque_data(
        torque_job("12[0].h", "C", exit_status="0"),
        torque_job("12[1].h", "R", start_time="100", Resource_List="<walltime>00:10:00</walltime>"),
    )
    found = get_scheduler("torque").parse_status(output, ["12[].h"])["12[].h"]
    assert found.state is State.ACTIVE
    assert found.elements[1].end_s == 700
    several = Output(153, '<?xml version="1.0"?>' + output.stdout + torque_data(torque_job("13.h", "Q")).stdout + "\n")
    found = get_scheduler("torque").parse_status(several, ["13.h", "12[].h", "14.h"])
    assert [str(status.state) for status in found.values()] == ["queued", "active", "unknown"]
    with pytest.raises(QueryError):
        get_scheduler("torque").parse_status(Output(0, "<Data><Job>"), ["12.h"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("(null)", ()),
        ("n1", ("n1",)),
        ("n[1-3]", ("n1", "n2", "n3")),
        ("n[1,3]", ("n1", "n3")),
        ("n[08-10,12],gpu1", ("n08", "n09", "n10", "n12", "gpu1")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("n[1-2]-ib", ("n1-ib", "n2-ib")),
    ],
)
def test_names_of_nodes(text, names):
    assert expand_hosts(text) == names


def test_the_exit_code_of_an_array_is_of_those_that_made_it_what_it_is():
    ends = {0: JobStatus("1", State.CANCELED, exit_code=143), 1: JobStatus("1", State.FAILED, exit_code=3)}
    assert (summed_up("1", ends).state, summed_up("1", ends).exit_code) == (State.FAILED, 3)


def test_an_array_is_final_only_when_all_of_it_is():
    for first, second in itertools.product(State, repeat=2):
        summed = summed_up("1", {0: JobStatus("1", first), 1: JobStatus("1", second)})
        assert summed.state.final == (first.final and second.final)
        assert (summed.state is State.COMPLETED) == (first is second is State.COMPLETED)
