"""What travels between processes: messages, frames, sessions. No socket, no clock, no thread.

``messages`` says what can be said and by whom, ``codec`` turns a message into a frame and back, ``session`` makes a
reliable stream out of connections that break, ``objects`` turns Python objects into frames.
"""
