# SPDX-License-Identifier: Apache-2.0
"""Pages: each one file that asks nothing of any other server, and most run no script.

Templates lie in ``templates/``; ``base.html.j2`` has what all of them share. Whatever comes from
users' files (class names, captions, paths) is escaped by the template engine.
"""
import base64
import functools
import io
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps, colors
from PIL import Image

from ..checkpoints.io import write_atomically
from .charts import svg
from .theme import COLOURS


def write_page(path: str | Path, template: str, **values: Any) -> Path:
    """Writes a page; one that is interrupted leaves the old one as it was.

    Args:
        path: of the page.
        template: its name in ``templates/``, without the suffix.
        values: what the template shows.

    Returns:
        The path.
    """
    page = render(template, **values)
    # A file name that is no text in the system's encoding must not cost the page.
    write_atomically(path, lambda file: file.write_bytes(page.encode('utf-8', 'replace')))
    return Path(path)


def render(template: str, **values: Any) -> str:
    """The text of a page; arguments as of :func:`write_page`."""
    return _environment().get_template(f'{template}.html.j2').render(**values)


def data_uri(image: Image.Image, photograph: bool = False) -> str:
    """An image as an address that holds it: JPEG for photographs, else PNG."""
    buffer = io.BytesIO()
    if photograph:
        image.save(buffer, 'JPEG', quality=90, subsampling=0)
    else:
        image.save(buffer, 'PNG', optimize=True)
    kind = 'jpeg' if photograph else 'png'
    return f'data:image/{kind};base64,' + base64.b64encode(buffer.getvalue()).decode()


def colour_stops(name: str, stops: int = 9) -> str:
    """A colour scale as the stops of a CSS gradient, from low to high."""
    scale = colormaps[name]
    return ', '.join(colors.to_hex(scale(i / (stops - 1))) for i in range(stops))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / 'templates'), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(colours=COLOURS)
    environment.filters.update(
        svg=svg,
        uri=lambda tile: data_uri(tile.image, tile.photograph),
        stops=colour_stops,
        words=lambda name: str(name).replace('_', ' '),
        # No line break between a number and its sign.
        firm=lambda text: re.sub(r'(?<=\d) (?=%)|(?<=±) ', '\u00a0', text))
    return environment
