# SPDX-License-Identifier: Apache-2.0
"""The explorer as a web page, for a browser on this machine alone.

Werkzeug serves it, which TensorBoard brings along: nothing new is installed. Gradio would
be 35 more packages, two of which replace the Pillow and huggingface_hub that the tests run with.

Whoever knows the address may ask: it holds a random word, which other users of the machine and
other web sites do not know. A request under another host's name (DNS rebinding) or from another
site's page is refused.
"""
import io
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from werkzeug.exceptions import (
    Forbidden,
    HTTPException,
    LengthRequired,
    NotFound,
    RequestEntityTooLarge,
)
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from ...datasets.decoding import composite, open_image
from ...errors import MilanError
from ...reports.page import data_uri, render
from .explorer import Answer, Explorer

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 2**26
"""67 megapixels; decoded, an image of that size takes 0.2 GB."""
_ADDRESS = '127.0.0.1'
_NAMES = (_ADDRESS, 'localhost', '[::1]')
_HEADERS = {
    'Content-Security-Policy': "frame-ancestors 'none'", 'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin'}
_TEMPLATES = Path(__file__).parents[2] / 'reports/templates'


class Application:
    """The WSGI application.

    Args:
        explorer: answers.
        facts: what the page says of the model, by name.

    Attributes:
        secret: the first word of every address.
    """

    def __init__(self, explorer: Explorer, facts: dict[str, str]) -> None:
        self.explorer, self.facts = explorer, facts
        self.secret = secrets.token_urlsafe(12)
        self._one_at_a_time = threading.Lock()

    def __call__(self, environ: dict, start: Callable) -> Iterable[bytes]:
        request = Request(environ)
        request.trusted_hosts = list(_NAMES)
        try:
            response = self._respond(request)
        except HTTPException as error:
            response = _plain(error.description or '', error.code or 500)
        except MilanError as error:
            response = _plain(str(error), 400)
        response.headers.extend(_HEADERS)
        return response(environ, start)

    def _respond(self, request: Request) -> Response:
        own = request.host_url.rstrip('/')  # raises for the name of another host
        if request.headers.get('Origin', own) != own:
            raise Forbidden('This page answers no other site.')
        secret, _, path = request.path.lstrip('/').partition('/')
        if not secrets.compare_digest(secret.encode(), self.secret.encode()):
            raise NotFound('Open the whole address that milan explore printed.')
        if path == '':
            return Response(self._page(), mimetype='text/html')
        if path == 'explore.js':
            return Response((_TEMPLATES / 'explore.js').read_bytes(), mimetype='text/javascript')
        word, _, rest = path.partition('/')
        if word == 'thumbnail':
            return Response(_thumbnail(self._of_gallery(rest)), mimetype='image/jpeg')
        with self._one_at_a_time:
            return Response(json.dumps(self._answer(request, word, rest)),
                            mimetype='application/json')

    def _answer(self, request: Request, word: str, rest: str) -> dict[str, Any]:
        explorer, asked = self.explorer, request.args
        if word == 'image' and request.method == 'POST':
            image = _uploaded(request)
            return self._shown(explorer.show(image, asked.get('name', 'image')[:80]))
        if word == 'gallery':
            path = self._of_gallery(rest)
            return self._shown(explorer.show(
                composite(open_image(path, MOST_PIXELS)), explorer.gallery.name(path), path))
        key = asked.get('image', '')
        if word == 'masks':
            return _as_json(explorer.masks(
                key, _number(asked, 'ratio'), _number(asked, 'temperature'),
                int(_number(asked, 'draw'))))
        if word == 'patch':
            row, column = (min(max(_number(asked, name), 0.0), 1.0) for name in ('row', 'column'))
            return _as_json(explorer.patch(key, row, column))
        if word == 'near':
            return _as_json(explorer.near(key))
        if word == 'words':
            return _as_json(explorer.words(key, asked.get('text', '')[:300]))
        raise NotFound('There is no such page.')

    def _shown(self, key: str) -> dict[str, Any]:
        return dict(_as_json(self.explorer.image(key)), image=key)

    def _of_gallery(self, number: str) -> Path:
        paths = self.explorer.gallery.paths if self.explorer.gallery else []
        if not number.isdecimal() or int(number) >= len(paths):
            raise NotFound('There is no such image.')
        return paths[int(number)]

    def _page(self) -> str:
        explorer = self.explorer
        ratio, temperature = explorer.usual
        gallery = explorer.gallery
        return render(
            'explore', names=explorer.names, facts=self.facts, grid=explorer.grid,
            draws_masks=explorer.draws_masks, by_importance=explorer.masks_by_importance,
            with_words=explorer.texts is not None, ratio=ratio, temperature=temperature,
            gallery=[gallery.name(path) for path in gallery.paths] if gallery else [],
            folder=gallery.root.name if gallery else '',
            left_out=gallery.left_out if gallery else 0)


def check_port(port: int) -> None:
    """Raises MilanError for a port that cannot be had; 0 stands for any that is free."""
    if not 0 <= port < 2**16:
        raise MilanError(f'--port must be from 0 to 65535, got {port}')
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_ADDRESS, port))
    except OSError as error:
        raise MilanError(f'--port {port} cannot be used ({error.strerror}); give another, or 0 '
                         'for any that is free') from error


def serve(application: Application, port: int) -> BaseWSGIServer:
    """A server that listens already; ``serve_forever()`` answers.

    Args:
        application: to be served.
        port: on this machine's own address; see :func:`check_port`.
    """
    return make_server(_ADDRESS, port, application, threaded=True, request_handler=_Quiet)


class _Quiet(WSGIRequestHandler):
    """Without a line for each request, which would hold the secret."""

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == 'error':
            super().log(type, message, *args)


def _uploaded(request: Request) -> Image.Image:
    """The image in a request's body, decoded as those of a training are."""
    length = request.content_length
    if length is None:
        raise LengthRequired('The size of the image is not told.')
    if length > MOST_BYTES:
        raise RequestEntityTooLarge(
            f'The file has {length / 2**20:.0f} MB; at most {MOST_BYTES // 2**20} are read. Make '
            'it smaller.')
    content = request.stream.read(length)
    try:
        return composite(open_image('this file', MOST_PIXELS, content=content))
    except MilanError as error:
        raise MilanError(str(error).partition(', or in a config')[0]) from error


def _thumbnail(path: Path) -> bytes:
    image = composite(open_image(path))
    image.thumbnail((160, 160))
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=85)
    return buffer.getvalue()


def _number(asked: Any, name: str) -> float:
    try:
        value = float(asked[name])
    except (KeyError, ValueError):
        value = float('nan')
    if not -1e6 < value < 1e6:
        raise MilanError(f'expected a number for {name}, got {asked.get(name)!r}')
    return value


def _as_json(answer: Answer) -> dict[str, Any]:
    return dict(
        rows=[dict(title=row.title, tiles=[
            dict(src=data_uri(tile.image, tile.photograph), caption=tile.caption, alt=tile.alt,
                 map=not tile.photograph) for tile in row.tiles]) for row in answer.rows],
        facts=answer.facts)


def _plain(text: str, code: int) -> Response:
    return Response(text, code, mimetype='text/plain')
