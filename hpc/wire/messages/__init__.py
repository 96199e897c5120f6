"""Every message of the protocol, grouped by direction (docs/protocol.md, sections 3 to 6).

A message is a `msgspec.Struct` that travels as a MessagePack array: its tag, then its fields in order. New fields are
added at the end with a default, so that a peer that does not know them yet still understands the rest. Large data
never stands in a message: it follows as separate frames, which the controller passes on without looking at them.

Tasks are named by numbers. A client numbers its tasks from 1 on; a *bundle* is a run of them that travels as one unit,
``first`` to ``first + count - 1``. Offsets within a bundle (``start``, ``stop``) count from 0 and are half-open.
"""

from hpc.wire.messages.base import TOGETHER, EndReason, Kind, Message, Status
from hpc.wire.messages.client import (
    LARGEST_SHARE,
    SMALLEST_SHARE,
    Abort,
    After,
    Answer,
    Define,
    Delivered,
    Delivery,
    End,
    Ended,
    EngineRow,
    Engines,
    Interrupt,
    Keys,
    Options,
    Order,
    Query,
    Shutdown,
    Source,
    Submit,
)
from hpc.wire.messages.connection import Ack, EngineInfo, Goodbye, Hello, Identify, Refused, Welcome
from hpc.wire.messages.engine import (
    Declined,
    Entry,
    Need,
    Notice,
    Output,
    Results,
    Revoke,
    Revoked,
    Run,
    Stop,
    Terms,
)
from hpc.wire.messages.flow import Credit, Hold
from hpc.wire.messages.launcher import Exited, Group, Start
from hpc.wire.messages.parcels import Fetch, Label, Offer, Piece, Release, Taken, Withdraw
from hpc.wire.messages.stacks import Look, Sight, Stalled

__all__ = [
    "LARGEST_SHARE",
    "SMALLEST_SHARE",
    "TOGETHER",
    "Abort",
    "Ack",
    "After",
    "Answer",
    "Credit",
    "Declined",
    "Define",
    "Delivered",
    "Delivery",
    "End",
    "EndReason",
    "Ended",
    "EngineInfo",
    "EngineRow",
    "Engines",
    "Entry",
    "Exited",
    "Fetch",
    "Goodbye",
    "Group",
    "Hello",
    "Hold",
    "Identify",
    "Interrupt",
    "Keys",
    "Kind",
    "Label",
    "Look",
    "Message",
    "Need",
    "Notice",
    "Offer",
    "Options",
    "Order",
    "Output",
    "Piece",
    "Query",
    "Refused",
    "Release",
    "Results",
    "Revoke",
    "Revoked",
    "Run",
    "Shutdown",
    "Sight",
    "Source",
    "Stalled",
    "Start",
    "Status",
    "Stop",
    "Submit",
    "Taken",
    "Terms",
    "Welcome",
    "Withdraw",
]
