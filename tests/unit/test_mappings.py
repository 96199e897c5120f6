"""Segments of clients that an engine keeps mapped."""

import os

import pytest

from hpc.engine import mappings
from hpc.engine.mappings import Mappings
from hpc.errors import ProtocolError
from hpc.transport.shared import Descriptor, Handle, SharedFrame


def segment(nbytes: int) -> Descriptor:
    memory = Descriptor(os.memfd_create("test"))
    os.ftruncate(memory.fd, nbytes)
    return memory


def frame(memory: Descriptor, offset: int, nbytes: int) -> SharedFrame:
    """Make a frame as it comes in a message of its own: with a descriptor of its own."""
    copy = Descriptor(os.dup(memory.fd))
    return SharedFrame(Handle(copy, copy, offset + nbytes), offset, nbytes)


def test_a_segment_is_mapped_once_and_is_the_senders_memory():
    kept, memory = Mappings(), segment(8192)
    first = kept.memory(frame(memory, 0, 4))
    second = kept.memory(frame(memory, 4096, 4))
    assert first.obj is second.obj
    second[:] = b"abcd"
    assert os.pread(memory.fd, 4, 4096) == b"abcd"
    assert repr(kept) == "<Mappings of 1 segments>"


def test_a_segment_that_has_grown_is_mapped_anew():
    kept, memory = Mappings(), segment(4096)
    assert kept.memory(frame(memory, 0, 4096)).nbytes == 4096
    os.ftruncate(memory.fd, 3 * 4096)
    os.pwrite(memory.fd, b"end", 3 * 4096 - 3)
    assert bytes(kept.memory(frame(memory, 4096, 2 * 4096)))[-3:] == b"end"
    assert len(kept._mapped) == 1


def test_a_segment_that_is_too_short_is_refused():
    with pytest.raises(ProtocolError, match="shorter than the 4097 bytes"):
        Mappings().memory(frame(segment(4096), 1, 4096))


def test_old_and_too_many_mappings_go():
    kept = Mappings()
    memories = [segment(4096) for _ in range(mappings.MAX_MAPPED + 2)]
    for memory in memories:
        kept.memory(frame(memory, 0, 4096))
    assert len(kept._mapped) == mappings.MAX_MAPPED
    kept._mapped = {key: (view, used - mappings.MAPPED_S - 1) for key, (view, used) in kept._mapped.items()}
    kept._expire()
    assert not kept._mapped
