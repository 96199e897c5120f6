"""What engines printed and displayed, laid out as ipyparallel does: ``[stdout:0]``, ``[output:0]``, ``Out[0:5]:``."""

import sys
from itertools import zip_longest
from typing import Any, NamedTuple

import hpc
from hpc.client.showing import GROUPINGS, print_headed


class _Row(NamedTuple):
    """What there is of one task; ``value`` is that of the last expression, None if there was none."""

    engine: int
    stdout: str
    stderr: str
    displayed: list[dict[str, Any]]
    value: dict[str, Any] | None

    def show_text(self, headed: bool) -> None:
        for stream, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            self.show_stream(stream, text, headed)

    def show_stream(self, stream: str, text: str, headed: bool) -> None:
        print_headed(text, f"[{stream}:{self.engine}]" if headed else "", stream)

    def show_displayed(self, outputs: list[dict[str, Any]], headed: bool) -> None:
        if outputs and headed:
            print(f"[output:{self.engine}]", flush=True)
        for output in outputs:
            _publish(output["data"], output["metadata"])

    def show_value(self) -> None:
        if self.value is not None:
            data = dict(self.value["data"])
            text = data.get("text/plain", "")
            data["text/plain"] = f"Out[{self.engine}:{self.value.get('execution_count')}]: {text}"
            _publish(data, self.value["metadata"])


def display(result: hpc.AsyncResult, groupby: str = "type", *, text: bool = True, displayed: bool = True) -> None:
    """Show what there is of a result that has ended, in any case the values of the last expressions."""
    if groupby not in GROUPINGS:
        raise ValueError(f"groupby must be one of {', '.join(GROUPINGS)}, not {groupby!r}")
    rows = _rows(result)
    headed = not result._is_one()
    if not text:
        rows = [row._replace(stdout="", stderr="") for row in rows]
    if not displayed:
        rows = [row._replace(displayed=[]) for row in rows]
    if groupby == "engine":
        for row in rows:
            row.show_text(headed)
            row.show_displayed(row.displayed, headed)
            row.show_value()
        return
    for row in rows:
        row.show_stream("stdout", row.stdout, headed)
    for row in rows:
        row.show_stream("stderr", row.stderr, headed)
    if groupby == "type":
        for row in rows:
            row.show_displayed(row.displayed, headed)
    else:
        for outputs in zip_longest(*(row.displayed for row in rows)):
            for row, output in zip(rows, outputs, strict=True):
                row.show_displayed([] if output is None else [output], headed)
    for row in rows:
        row.show_value()


def _rows(result: hpc.AsyncResult) -> list[_Row]:
    # As hpc has them: there the value stands among the outputs.
    outputs, several = hpc.AsyncResult.outputs.fget(result), not result._is_one()  # type: ignore[attr-defined]
    columns = (result.engine_id, result.stdout, result.stderr, outputs)
    rows = []
    for engine, stdout, stderr, shown in zip(*columns, strict=True) if several else [columns]:
        value = next((output for output in shown if output["output_type"] == "execute_result"), None)
        rows.append(_Row(engine, stdout, stderr, [output for output in shown if output is not value], value))
    return rows


def _publish(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    # Only where IPython runs already is there somebody who could look at more than text.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or set(data) == {"text/plain"}:
        print(data.get("text/plain", ""), flush=True)
    else:
        sys.stdout.flush()
        shell.display_pub.publish(data=data, metadata=metadata)
