"""How pages are rendered: what a result holds is escaped, and a missing name is an error."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Return what loads and renders the templates that stand beside this file."""
    return Environment(
        loader=PackageLoader("vggfeat.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
