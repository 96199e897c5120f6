"""What a spec accepts, and how it says no: the field by name, and what to write instead."""

import datetime

import pytest

from jobscripts import JobSpec, Launch, SpecError
from jobscripts.spec import parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2:00:00", 7200),
        ("0:00:30", 30),
        ("100:00:00", 360000),
        ("1-12:00:00", 129600),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1d", 86400),
        ("2h 5s", 7205),
        (3600, 3600),
        (0.5, 1),
        (datetime.timedelta(hours=2), 7200),
        (None, None),
        ("", None),
    ],
)
def test_walltimes(text, seconds):
    assert JobSpec(walltime=text).walltime_s == seconds


@pytest.mark.parametrize(
    "text", ["120", "2:00", "soon", "-1h", "0:00:00", 0, -5, float("inf"), float("nan"), True, "1-25:00:00", []]
)
def test_what_is_no_walltime_is_refused(text):
    with pytest.raises(SpecError) as caught:
        JobSpec(walltime=text)
    assert caught.value.field == "walltime"


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, (1, 1, 1)),
        ({"nodes": 4}, (4, 1, 4)),
        ({"ranks_per_node": 8}, (1, 8, 8)),
        ({"nodes": 4, "ranks_per_node": 32}, (4, 32, 128)),
        ({"nodes": 4, "ranks": 8}, (4, 2, 8)),
        ({"nodes": 2, "ranks": 8, "ranks_per_node": 4}, (2, 4, 8)),
        ({"ranks": 7}, (None, None, 7)),
    ],
)
def test_shapes(fields, shape):
    spec = JobSpec(**fields)
    ranks_per_node = spec.ranks_per_node or spec.ranks_on_node
    assert (spec.node_count, ranks_per_node, spec.total_ranks) == shape


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("nodes", {"nodes": 0}),
        ("nodes", {"nodes": "4"}),
        ("nodes", {"nodes": True}),
        ("ranks", {"nodes": 2, "ranks": 7}),
        ("ranks", {"nodes": 2, "ranks_per_node": 2, "ranks": 5}),
        ("memory_mib", {"memory_mib": 1.5}),
        ("name", {"name": "two\nlines"}),
        ("queue", {"queue": " short"}),
        ("array", {"array": "a-b"}),
        ("array", {"array": "5-3"}),
        ("array", {"array": "0-9%0"}),
        ("dependency", {"dependency": ("after 3",)}),
        ("dependency", {"dependency": "afterok:3"}),
        ("mail_on", {"mail_on": ("always",)}),
        ("notice_s", {"notice_s": 60}),
        ("notice_s", {"notice_s": 600, "walltime": "0:10:00"}),
        ("environment", {"environment": {"A B": "1"}}),
        ("environment", {"environment": {"A": 1}}),
        ("environment", {"environment": {"A": "\0"}}),
        ("extra", {"extra": ("#SBATCH --x",)}),
        ("extra", {"extra": ("--x\n#SBATCH --y",)}),
        ("prologue", {"prologue": "module load x"}),
        ("launch", {"launch": Launch(), "command": "text"}),
        ("components", {"components": ({"nodes": 1},)}),
        ("nodes", {"components": (JobSpec(),), "nodes": 2}),
        ("walltime", {"components": (JobSpec(walltime=60),)}),
        ("array", {"components": (JobSpec(),), "array": "0-3"}),
        ("stdout", {"stdout": 3}),
    ],
)
def test_what_cannot_be_is_refused_by_name(field, fields):
    with pytest.raises(SpecError) as caught:
        JobSpec(**fields)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(SpecError, match="node: a job has no such field.*nodes"):
        JobSpec().replace(node=3)


def test_a_spec_does_not_change_under_its_user():
    environment = {"A": "1"}
    spec = JobSpec(environment=environment, prologue=["a"])
    environment["A"] = "2"
    assert spec.environment == {"A": "1"}
    assert spec.prologue == ("a",)
    assert spec.replace(nodes=3).nodes == 3
    assert spec.nodes is None


@pytest.mark.parametrize(
    ("array", "indices"),
    [("0-3", (0, 1, 2, 3)), ("0-9:3%2", (0, 3, 6, 9)), ("7", (7,)), ("1,5-6", (1, 5, 6)), ("", ())],
)
def test_array_indices(array, indices):
    assert JobSpec(array=array).array_indices == indices


def test_errors_of_durations_name_the_field_that_they_are_of():
    with pytest.raises(SpecError, match="max_walltime"):
        parse_duration_s("long", "max_walltime")
