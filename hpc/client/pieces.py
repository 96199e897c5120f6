"""What tasks have printed while they ran, in numbered pieces. Of very much text the middle is left out."""

from typing import Final

# Of what one task prints so many characters are kept: half of them from the beginning, half from the end.
KEPT: Final = 16 * 1024 * 1024


class _Text:
    """What one task has printed: pieces by number, None in place of those that are left out."""

    __slots__ = ("at", "head", "kept", "left_out", "pieces")

    def __init__(self) -> None:
        self.pieces: dict[int, tuple[str, str] | None] = {}
        self.kept = 0
        self.head = 0  # characters in the pieces before `at`, which are kept
        self.at = 0  # the next piece to leave out
        self.left_out: dict[str, int] = {}

    def add(self, number: int, stream: str, text: str, limit: int) -> None:
        if number in self.pieces:
            return
        self.pieces[number] = stream, text
        self.kept += len(text)
        while self.kept > limit and (piece := self.pieces.get(self.at)) is not None:
            its_stream, its_text = piece
            if self.head + len(its_text) <= limit // 2:
                self.head += len(its_text)
            else:
                self.head = limit  # the beginning ends here
                self.pieces[self.at] = None
                self.kept -= len(its_text)
                self.left_out[its_stream] = self.left_out.get(its_stream, 0) + len(its_text)
            self.at += 1

    def of(self, stream: str) -> str:
        note = ""
        if n := self.left_out.get(stream):
            note = f"\n[... {n} characters are left out here: hpc keeps {KEPT} of what a task prints ...]\n"
        texts = []
        for _, piece in sorted(self.pieces.items()):
            if piece is None:
                texts.append(note)
                note = ""
            elif piece[0] == stream:
                texts.append(piece[1])
        return "".join(texts)


class Pieces:
    """Output of the tasks of one result that came while they ran."""

    __slots__ = ("_by_task", "limit")

    def __init__(self, limit: int = KEPT) -> None:
        self.limit = limit
        self._by_task: dict[int, _Text] = {}

    def __repr__(self) -> str:
        return f"<Pieces of {len(self._by_task)} tasks>"

    def add(self, task: int, number: int, stream: str, text: str) -> None:
        """Keep a piece; the same number again changes nothing."""
        self._by_task.setdefault(task, _Text()).add(number, stream, text, self.limit)

    def count(self, task: int) -> int:
        """Return how many pieces of a task came."""
        text = self._by_task.get(task)
        return 0 if text is None else len(text.pieces)

    def text(self, task: int, stream: str) -> str:
        """Return what came over one stream, in order."""
        text = self._by_task.get(task)
        return "" if text is None else text.of(stream)
