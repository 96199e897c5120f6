"""A session of the standard library's debugger, without a terminal. Apart, because it takes its time to import."""

import io
import pdb
from pathlib import Path
from typing import Final

_PACKAGE: Final = str(Path(__file__).parent.parent) + "/"


class Session(pdb.Pdb):
    """A debugger that reads from nowhere and writes to memory."""

    def __init__(self, error: BaseException) -> None:
        self._text = io.StringIO()
        super().__init__(stdin=io.StringIO(), stdout=self._text, nosigint=True, readrc=False)
        trace = error.__traceback__
        while (
            trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE)
        ):
            trace = trace.tb_next
        self.reset()
        self.setup(None, trace)

    def __repr__(self) -> str:
        return f"<Session at {self.curframe}>"

    def where(self) -> str:
        """Return the line that the session is at."""
        self.print_stack_entry(self.stack[self.curindex])
        return self._take()

    def carry_out(self, line: str) -> tuple[str, bool]:
        """Carry out a command; return what it prints, and whether the session goes on."""
        over = self.onecmd(self.precmd(line))
        return self._take(), not over

    def _take(self) -> str:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text

    def _not_here(self, arg: str) -> bool | None:
        self.error("this needs a terminal, and the engine has none")
        return None

    do_interact = do_debug = do_run = do_restart = do_commands = _not_here
