"""PASCAL VOC annotations: one XML file an image, which names the objects on it."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from vggfeat.errors import DatasetError

_MOST_BYTES = 1 << 20  # of an annotation; real ones have some kB
_TRUTHS = {"": False, "0": False, "false": False, "1": True, "true": True}


def read_objects(path: Path) -> list[Element]:
    """Read the objects of an annotation, without running anything that it could hold.

    Args:
        path: An XML file of the devkit's form, with or without a namespace.

    Returns:
        Every object, in the file's order, with names that have no namespace.

    Raises:
        DatasetError: If the file is absent, too large or no XML, or has a DOCTYPE.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DatasetError(f"'{path}' is larger than 1 MB.", "Annotations have some kB.")
        tree = defusedxml.ElementTree.fromstring(path.read_bytes(), forbid_dtd=True)
    except OSError as error:
        raise DatasetError(
            f"'{path}' cannot be read: {error.strerror}.", remedy="Unpack the data set again."
        ) from error
    except DefusedXmlException as error:
        raise DatasetError(
            f"'{path}' is no sound annotation: it has a DOCTYPE ({error}).",
            "Expected none: it may name other files, and is never followed.",
            "Take it out of the file.",
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise DatasetError(
            f"'{path}' is no sound annotation: {error}.",
            "Expected XML in UTF-8, UTF-16 or Latin-1.",
            "Mend the file.",
        ) from error
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    return list(tree.findall("object"))


def object_name(element: Element, path: Path) -> str:
    """Return the class of an object.

    Raises:
        DatasetError: If it has none.
    """
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DatasetError(f"'{path}': an object has no name.")
    return name


def is_difficult(element: Element, path: Path) -> bool:
    """Say whether an object is marked as difficult; one that does not say so is not.

    Raises:
        DatasetError: If the mark is neither 0 nor 1.
    """
    text = (element.findtext("difficult") or "").strip()
    if text.casefold() not in _TRUTHS:
        raise DatasetError(
            f"'{path}': an object is difficult {text!r}.",
            "Expected 0 or 1, or nothing.",
            "Mend the file.",
        )
    return _TRUTHS[text.casefold()]
