"""Large frames that travel apart from their message, in pieces and on demand (docs/protocol.md, section 2.3)."""

from hpc.wire.messages.base import Message


class Label(Message):
    """Says of frame ``place`` of a body that it is a parcel; the frame itself is empty."""

    place: int
    number: int
    nbytes: int


class Offer(Message, tag=80):
    """Controller to peer: fetch this parcel; a message that needs it follows when it is `Taken`."""

    number: int
    nbytes: int


class Withdraw(Message, tag=81):
    """A parcel will not come: the controller has lost its sender, or the peer has no memory for it."""

    number: int
    reason: str


class Fetch(Message, tag=82):
    """Send bytes [start, stop) of a parcel, if any. ``received`` is how many of its bytes its receiver has so far.

    From a peer to the controller, and from the controller to the peer that has the parcel.
    """

    number: int
    start: int
    stop: int
    received: int = 0


class Piece(Message, tag=83):
    """Bytes of a parcel from ``start`` on: the one frame that follows. Without a frame: the parcel is not here."""

    number: int
    start: int


class Taken(Message, tag=84):
    """Peer to controller: all of the parcel is here."""

    number: int


class Release(Message, tag=85):
    """Controller to peer: nobody will fetch this parcel any more."""

    number: int
