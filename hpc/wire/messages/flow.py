"""What slows a flood at its source (docs/protocol.md, section 2.4)."""

from hpc.wire.messages.base import Message


class Credit(Message, tag=78):
    """Controller to client: how many bytes of its unfinished work may be here; it waits before it submits more."""

    nbytes: int


class Hold(Message, tag=46):
    """Controller to engine: keep the output of this client's tasks back, because it does not take it; or go on."""

    client: int
    on: bool
