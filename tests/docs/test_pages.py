"""The pages are true: links lead somewhere, the numbers and names of the protocol are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hpc
from hpc.transport import framing
from hpc.wire import codec, failures, functions, messages, objects, session

ROOT = Path(hpc.__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
README = (ROOT / "README.md").read_text()
MIB = 1024 * 1024


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_each_message_is_explained():
    for name in messages.__all__ if hasattr(messages, "__all__") else vars(messages):
        kind = getattr(messages, name)
        if isinstance(kind, type) and issubclass(kind, messages.Message) and kind.__struct_config__.tag is not None:
            assert re.search(rf"\b{name}\b", PROTOCOL), f"{name} is not in docs/protocol.md"


@pytest.mark.parametrize("role", ["client", "monitor", "engine", "launcher"])
def test_the_table_of_roles_is_that_of_the_codec(role):
    (row,) = re.findall(rf"^\| `{role}` \|.*$", PROTOCOL, re.MULTILINE)
    *_, speaks, hears, _ = (cell.strip() for cell in row.split("|"))
    always = {"Ack", "Goodbye"}
    assert {k.__name__ for k in codec.SPEAKS[role]} == always | set(speaks.split(", "))
    assert {k.__name__ for k in codec.HEARS[role]} == always | set(hears.split(", "))


def test_the_numbers_of_the_protocol():
    assert f"Version {codec.PROTOCOL}." in PROTOCOL
    assert f"prefix of {codec.PREFIX.size} bytes" in PROTOCOL
    assert f"| frame 0 | {codec.MAX_MESSAGE_NBYTES // MIB} MiB |" in PROTOCOL
    assert f"| frames in a transmission | {codec.MAX_FRAMES:,} |" in PROTOCOL
    assert f"| a frame of the body | {framing.MAX_FRAME_NBYTES // 2**30} GiB |" in PROTOCOL
    assert f"| an error's text, its traceback | {failures.MAX_TEXT // MIB} MiB each" in PROTOCOL
    assert f"| a global that comes along with a function | {functions.MAX_GLOBAL_NBYTES // MIB} MiB |" in PROTOCOL
    assert f"| buffer that rides in the pickle | below {objects.OUT_OF_BAND_NBYTES // 1024} KiB |" in PROTOCOL
    ack = f"*Ack* after {session.ACK_EVERY_MESSAGES} messages or {session.ACK_EVERY_NBYTES // MIB} MiB"
    assert ack in " ".join(PROTOCOL.split())
    assert f"`0x{framing.MAGIC:X}`" in PROTOCOL


def test_the_first_command_of_the_readme_runs_a_program_that_is_there():
    (command,) = re.findall(r"ipcluster run -n 4 --mpi -- (docs/\S+)", README)
    assert (ROOT / command).is_file()


@pytest.mark.needs_mpi
def test_the_tour_of_the_readme(tmp_path, monkeypatch):
    (tour,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "hpc.Cluster" in code]
    (tmp_path / "tour.py").write_text(tour)
    monkeypatch.setenv("HPC_DIR", str(tmp_path / "home"))
    done = subprocess.run([sys.executable, "tour.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[0] == "[0, 7, 14, 21]"
    assert float(shown[1].split()[0]) == pytest.approx(500)
    assert shown[1].endswith("(1000,)")
    assert shown[-4:] == [str(sum(n * n for n in range(100_000))), "[2, 4]", "6", str(2**100)]


def test_files_that_the_pages_name_are_there():
    for page in PAGES:
        for name in re.findall(
            r"`((?:hpc|client|engine|controller|transport|wire|tests|scripts)/[\w/]+\.py)`", page.read_text()
        ):
            assert (ROOT / name).exists() or (ROOT / "hpc" / name).exists(), f"{page.name} names {name}"
