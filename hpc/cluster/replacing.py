"""Groups that get new processes under the same ids: the old ones end first, by themselves, by signal, or killed."""

import signal
import time
from typing import TYPE_CHECKING, Any, Final

from hpc.cluster import processes
from hpc.cluster.groups import EngineGroup

if TYPE_CHECKING:
    from hpc.cluster.workforce import Workforce

# Engines have been told to leave, and do so within their grace unless C code keeps them from it; then their launcher is
# told, too, which ends ranks on other hosts; then what is left here is killed.
TERM_S: Final = 2.5
KILL_S: Final = 5.0
# The controller hears of the end of the old processes before it hears of the new ones.
PAUSE_S: Final = 0.05


class Replacements:
    """Groups on their way from old processes to new ones; times are those of the monotonic clock."""

    def __init__(self, workforce: "Workforce") -> None:
        self._workforce = workforce
        # By label: the group as the controller calls it.
        self._wanted: dict[str, str] = {}
        self._ending: dict[str, tuple[float, int]] = {}
        self._starting: dict[str, tuple[float, EngineGroup]] = {}

    def __repr__(self) -> str:
        return f"<Replacements: {list(self._ending)} end, {list(self._starting)} start>"

    def refusal(self, name: str) -> str:
        """Return why a group cannot be started anew, '' if it can."""
        label = label_of(name)
        if label in self._workforce.started:
            return ""
        return (
            f"group {name} was not started by this cluster: end its engines, and start others where they were started"
        )

    def begin(self, name: str) -> None:
        """Have a group, whose engines are told to leave if there are any, replaced."""
        label = label_of(name)
        if label in self._wanted:
            return
        self._wanted[label] = name
        group, now = self._workforce.group(label), time.monotonic()
        if group is None:
            self._starting[label] = now + PAUSE_S, self._workforce.started[label]
            return
        group.state = "leaving"
        self._ending[label] = now + TERM_S, signal.SIGTERM
        if self._workforce.jobs is not None:
            self._workforce.jobs.cancel(label, TERM_S)

    def ended(self, group: EngineGroup) -> None:
        """Take note that the processes of a group have ended."""
        if group.label in self._wanted:
            self._ending.pop(group.label, None)
            self._starting[group.label] = time.monotonic() + PAUSE_S, group

    @property
    def look_at(self) -> float:
        """When `look` is due."""
        return min((when for when, _ in (*self._ending.values(), *self._starting.values())), default=float("inf"))

    def look(self, now: float) -> None:
        """Signal what has not ended; start what is to be started."""
        for label, (when, signum) in list(self._ending.items()):
            group = self._workforce.group(label)
            if group is None:
                del self._ending[label]
            elif when <= now:
                following: Any = signal.SIGKILL
                self._ending[label] = now + KILL_S - TERM_S, following
                if group.pid:
                    processes.send_signal(group.pid, signum, group=signum == signal.SIGKILL)
                    processes.send_signal(group.pid, signal.SIGCONT, group=True)
        for label, (when, group) in list(self._starting.items()):
            if when <= now:
                del self._starting[label]
                self._workforce.start_again(group, self._wanted.pop(label))


def label_of(name: str) -> str:
    """Return the label by which a group was started, from its name at the controller."""
    return name.rpartition("-")[0]
