"""What the engines displayed, shown where the person is: identical values once, pictures in a notebook."""

import sys
from typing import TYPE_CHECKING, Any

from hpc.errors import ranges

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult
    from hpc.wire.display import Outputs


def show(result: "AsyncResult") -> None:
    """Show all that was displayed, engine by engine; engines that show the same text are named together."""
    found = [result.outputs] if result._is_one() else result.outputs
    engines = [result.engine_id] if result._is_one() else result.engine_id
    alike: list[tuple[list[int], Outputs]] = []
    for engine, outputs in zip(engines, found, strict=True):
        if not outputs:
            continue
        same = next(
            (ids for ids, shown in alike if _texts(shown) is not None and _texts(shown) == _texts(outputs)), None
        )
        if same is not None:
            same.append(engine)
        else:
            alike.append(([engine], outputs))
    for ids, outputs in alike:
        for output in outputs:
            _publish(output, ranges(sorted(ids)))


def _texts(outputs: "Outputs") -> list[str] | None:
    """Return what there is to compare; None if it is more than text."""
    if any(set(output["data"]) != {"text/plain"} for output in outputs):
        return None
    return [output["data"]["text/plain"] for output in outputs]


def _publish(output: dict[str, Any], who: str) -> None:
    data, word = output["data"], "Out" if output["output_type"] == "execute_result" else "display"
    text = data.get("text/plain", "")
    # Only where IPython runs already is there somebody who could look at more than text.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if set(data) == {"text/plain"} or shell is None:
        print(f"{word}[{who}]: {text}" if "\n" not in text else f"{word}[{who}]:\n{text}")
        return
    print(f"{word}[{who}]:", flush=True)
    shell.display_pub.publish(data=data, metadata=output["metadata"])
