"""The examples of docs/howto/job-scripts.md: the Python is run, the profile is read, the script is what is printed."""

import os
import re
import shlex
import tomllib
from pathlib import Path

from jobscripts import JobSpec, get_scheduler
from jobscripts.__main__ import main
from jobscripts.sites import read_profile

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "job-scripts.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for program in ("bash", "ps", "python3", "date", "hostname", "rm", "mv", "sleep", "nohup"):
        found = next(Path(p) / program for p in os.environ["PATH"].split(os.pathsep) if (Path(p) / program).exists())
        (tmp_path / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))  # no scheduler here
    [code] = blocks("python")
    exec(code, {})
    assert capsys.readouterr().out.endswith("completed 42\n\n")


def test_the_profile():
    [text] = blocks("toml")
    profile = read_profile(tomllib.loads(text), "big", "the page")
    spec = profile.apply(JobSpec(command=("a",), nodes=2))
    assert spec.total_ranks == 64
    assert "module load openmpi/5.0" in get_scheduler(profile.scheduler).script(spec)


def test_the_script(capsys):
    [text] = blocks("console")
    command, _, printed = text.partition("\n")
    words = shlex.split(command.removeprefix("$ python -m jobscripts "))
    assert main(words) == 0
    assert capsys.readouterr().out == printed
