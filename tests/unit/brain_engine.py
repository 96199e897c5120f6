"""What an engine does with what the brain sends, for models: nothing of it takes time."""

import math
from collections import deque

from hypothesis import strategies as st

from hpc.controller.events import Frames
from hpc.wire import codec
from hpc.wire import messages as m


def draw_options(data: st.DataObject, condition: bytes) -> m.Options:
    """Draw what is special about some tasks; what they come after is for the model to fill in."""
    return m.Options(
        priority=data.draw(st.sampled_from([0.0, 1.0, -1.0, 2.5])),
        labels=data.draw(st.sampled_from([[], [], ["big"]])),
        timeout_s=data.draw(st.sampled_from([-1.0, 0.0, 0.5, 30.0])),
        condition=data.draw(st.sampled_from([b"", b"", condition])),
        after=m.After([]) if data.draw(st.booleans()) else None,
    )


def frames_of(results: m.Results) -> Frames:
    """Return the entries that belong to results."""
    tasks = range(results.start, results.stop)
    return (codec.encode_entries([m.Entry(m.Status(i in results.failed), 0.0, 0.0, b"") for i in tasks]),)


def failed_of(item: m.Delivered, frames: Frames) -> set[int]:
    """Return the offsets of the tasks that failed."""
    entries = codec.decode_entries(frames[0]) if frames else []
    assert len(entries) in (0, item.stop - item.start)
    return {item.start + i for i, entry in enumerate(entries) if entry.status}


class FakeEngine:
    """Runs what it is sent in order; its answers to revokes are as late as the test wants."""

    def __init__(self, info: m.EngineInfo, left_s: float = math.inf) -> None:
        self.info = info
        self.left_s = left_s
        self.ends_at = math.inf
        self.noticed = False  # it has said that its allocation ends
        self.told = False  # that nothing more comes
        self.id = -1
        self.up = {"work": False, "control": False}
        self.stopped = False
        self.holds: set[bytes] = set()
        self.runs: deque[list[int]] = deque()
        self.begun = False
        self.conditional: set[tuple[int, int]] = set()  # bundles that have a condition
        self.mail: deque[m.Message] = deque()

    def received(self, message: m.Message) -> None:
        if isinstance(message, m.Define):
            assert message.digest not in self.holds, "a function was sent twice"
            self.holds.add(message.digest)
        elif isinstance(message, m.Run):
            assert set(message.functions) <= self.holds, "work came before its function"
            assert message.start < message.stop
            assert not self.told, "work after the last"
            if message.terms is not None and message.terms.condition:
                assert message.terms.condition in self.holds, "work came before its condition"
                self.conditional.add((message.client, message.first))
            self.runs.append([message.client, message.first, message.start, message.stop])
        elif isinstance(message, m.Stop):
            if self.noticed:
                asked = not any(isinstance(mail, m.Revoke) for mail in self.mail)
                assert asked or "client" in message.reason, "told that this is all before it has given back"
                self.told = True
            else:
                self.stopped = True

    def called(self, message: m.Message) -> None:
        """Take what comes over the control channel."""
        self.mail.append(message)
        self.stopped = self.stopped or isinstance(message, m.Stop)

    @property
    def done(self) -> bool:
        """Whether it has done all that it was sent, and may leave."""
        return self.told and not self.runs and not self.mail

    @property
    def declines(self) -> bool:
        """Whether what it would run next has a condition, which is met on two engines of three."""
        return bool(self.runs) and not self.begun and self.id % 3 == 0 and tuple(self.runs[0][:2]) in self.conditional

    def decline(self) -> m.Declined | None:
        """Decline the head range, if its condition is not met."""
        return m.Declined(*self.runs.popleft(), "it is not") if self.declines else None

    def begin(self) -> tuple[int, int] | None:
        """Begin the next task; return (client, number)."""
        if not self.runs or self.begun:
            return None
        self.begun = True
        client, first, start, _ = self.runs[0]
        return client, first + start

    def finish(self, n: int, failed: bool) -> m.Results:
        """End up to n tasks of the head range, the first of which has begun."""
        assert self.begun
        client, first, start, stop = self.runs[0]
        end = min(stop, start + n)
        self.begun = False
        if end == stop:
            self.runs.popleft()
        else:
            self.runs[0][2] = end
        return m.Results(client, first, start, end, False, [start] if failed else [], 0.001 * (end - start))

    def revoke(self, message: m.Revoke) -> m.Revoked:
        for index, run in enumerate(self.runs):
            client, first, start, stop = run
            if (client, first) != (message.client, message.first):
                continue
            free = start + (self.begun and index == 0)
            low, high = max(free, message.start), min(stop, message.stop)
            if low >= high:
                continue
            rest = [[client, first, start, low], [client, first, high, stop]]
            self.runs.remove(run)
            for piece in reversed(rest):
                if piece[2] < piece[3]:
                    self.runs.insert(index, piece)
            return m.Revoked(client, first, low, high)
        return m.Revoked(message.client, message.first, message.start, message.start)
