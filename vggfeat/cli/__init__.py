"""The command line: options → one call → print. Results on stdout, everything else on stderr."""

from vggfeat.cli import commands, looking, shelves
from vggfeat.cli.group import main

__all__ = ["commands", "looking", "main", "shelves"]
