"""A process that helps another one to fill a recipe's stores, on a device of its own.

    python -P -m vggfeat.extraction.helper

Standard input has the recipe and the machine, as a JSON list of two JSON texts.
"""

from __future__ import annotations

import json
import signal
import sys

from vggfeat.errors import VggfeatError
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Machine, Recipe
from vggfeat.watch import Watch


def main() -> None:
    """Extract what standard input says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the first process
    recipe, machine = json.load(sys.stdin)
    try:
        extract(
            Recipe.model_validate_json(recipe, strict=False),
            Machine.model_validate_json(machine, strict=False),
            Watch(),
        )
    except VggfeatError as error:
        sys.exit(f"vggfeat: {error}")


if __name__ == "__main__":
    main()
