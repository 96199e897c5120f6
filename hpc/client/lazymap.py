"""Maps over input that need not end: items are drawn as results are taken."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

from hpc.client.asyncresult import AsyncResult


class LazyMap(Iterator[Any]):
    """The values of a map, one by one; at most so many items are drawn whose values have not been taken.

    Parameters
    ----------
    submit : callable
        Called with the arguments of an item; returns its result.
    inputs : iterator of tuple
        The arguments, item by item; drawn by the thread that takes the values.
    max_outstanding : int
        How many items may be drawn ahead; 0 for all there are.
    ordered : bool
        Whether values come in the order of the items, or as they are there.
    return_exceptions : bool
        Whether exceptions are values; else the first one ends the iteration.
    """

    def __init__(
        self,
        submit: Callable[..., AsyncResult],
        inputs: Iterator[tuple[Any, ...]],
        *,
        max_outstanding: int,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> None:
        self._submit, self._inputs = submit, inputs
        self._max, self._ordered, self._return_exceptions = max_outstanding, ordered, return_exceptions
        self._under_way: deque[AsyncResult] = deque()
        self._over = False  # nothing more is to be drawn
        self._draw()

    def __repr__(self) -> str:
        return f"<LazyMap, {len(self._under_way)} items under way{', the last' if self._over else ''}>"

    def __next__(self) -> Any:
        self._draw()
        if not self._under_way:
            raise StopIteration
        result = self._next_result()
        try:
            return result.get(return_exceptions=self._return_exceptions)
        except Exception:  # whatever the task raised ends the map, and goes on to the caller
            self.cancel()
            self._under_way.clear()
            raise

    def _draw(self) -> None:
        while not self._over and (not self._max or len(self._under_way) < self._max):
            try:
                arguments = next(self._inputs)
            except StopIteration:
                self._over = True
                return
            self._under_way.append(self._submit(*arguments))

    def _next_result(self) -> AsyncResult:
        if self._ordered:
            return self._under_way.popleft()
        done = next((result for result in self._under_way if result.done()), None)
        if done is None:
            found: set[Any] = wait(self._under_way, return_when=FIRST_COMPLETED).done
            done = found.pop()
        self._under_way.remove(done)
        return done

    def cancel(self) -> None:
        """Draw nothing more, and abort what no engine has begun; values that are there can still be taken."""
        self._over = True
        for result in self._under_way:
            if not result.done():
                result.abort()
