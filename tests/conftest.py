"""What holds for all tests: no user's cluster is touched, nothing is skipped in CI, no process is left behind."""

import importlib.util
import os
import shutil
import tempfile
import uuid

import psutil
import pytest

from hpc.cluster import mpirun

IN_CI = os.environ.get("CI") == "true"
# Children inherit it: what still has it when the tests are over was left behind by one of them.
RUN_VARIABLE = "HPC_TEST_RUN"
GRACE_S = 5.0


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_mpi: starts ranks with the mpirun of the environment; run with each MPI")
    config.stash[RUN] = os.environ[RUN_VARIABLE] = uuid.uuid4().hex
    config.stash[DIRECTORY] = os.environ["HPC_DIR"] = tempfile.mkdtemp(prefix="hpc-tests-")


RUN = pytest.StashKey[str]()
DIRECTORY = pytest.StashKey[str]()


def pytest_collection_modifyitems(items):
    missing = "" if not any(item.get_closest_marker("needs_mpi") for item in items) else mpi_missing()
    for item in items:
        if missing and item.get_closest_marker("needs_mpi"):
            item.add_marker(pytest.mark.skip(reason=missing))


def mpi_missing():
    """Say why there can be no MPI groups in this environment; '' if there can."""
    if importlib.util.find_spec("mpi4py") is None:
        return "no MPI here: mpi4py is not installed"
    try:
        mpirun.find()
    except FileNotFoundError as error:
        return f"no MPI here: {error}"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and must_run(item, report):
        report.outcome = "failed"
        report.longrepr = f"skipped, but in CI every test must run: {report.longrepr}"
    return report


def must_run(item, report):
    """Say whether a skip is an error: all are, but for rights that a test cannot take, and MPI at a size too small."""
    if "needs the right to" in str(report.longrepr):
        return False
    too_small = item.get_closest_marker("mpi") and "Test requires" in str(report.longrepr)
    elsewhere = "test does not use mpi" in str(report.longrepr) or "need --with-mpi" in str(report.longrepr)
    return not (too_small or elsewhere)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    shutil.rmtree(session.config.stash[DIRECTORY], ignore_errors=True)
    left = left_behind(session.config.stash[RUN])
    _, alive = psutil.wait_procs(left, timeout=GRACE_S)
    if alive:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.section("processes left behind", red=True)
        for process in alive:
            reporter.write_line(describe(process))
            process.kill()


def left_behind(run):
    """Find the processes whose environment says that this run of the tests has started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(RUN_VARIABLE) == run:
                found.append(process)
        except psutil.Error:
            continue
    return found


def describe(process):
    try:
        return f"pid {process.pid}, {process.status()}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"pid {process.pid}, gone now"
