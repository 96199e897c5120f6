"""What code has to show besides text: values and pictures, as Jupyter lays them out."""

from typing import Any


class Outputs(list[dict[str, Any]]):
    """What a task displayed, in order; each a dict as in a notebook's ``outputs``.

    ``output_type`` is ``display_data`` or ``execute_result``; ``data`` maps MIME types to text or bytes, ``metadata``
    says more about them.
    """

    def __repr__(self) -> str:
        shown = [output["data"].get("text/plain", f"<{', '.join(output['data'])}>") for output in self]
        return "\n".join(shown)


def result_of(value: Any) -> dict[str, Any]:
    """Return the output that shows a value by its ``repr``."""
    return {"output_type": "execute_result", "data": {"text/plain": repr(value)}, "metadata": {}}
