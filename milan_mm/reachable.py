# SPDX-License-Identifier: Apache-2.0
"""Whether weights of the Hugging Face Hub are on this machine, or can be had.

Nothing here imports PyTorch: a training that cannot have its teacher is to say so at once, and not
after the imports and five tries to connect.
"""
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from .errors import MilanError
from .resources import RESOURCES

WEIGHTS = 'open_clip_model.safetensors'
REPOS = {'ViT-B-16-quickgelu:openai': 'timm/vit_base_patch16_clip_224.openai',
         'ViT-L-14-quickgelu:openai': 'timm/vit_large_patch14_clip_224.openai'}
"""Where open_clip finds the teachers that ``milan pretrain`` takes by default."""
_SECONDS = 1.5


def check_teacher_at_hand(spec: str, repo: str | None = None) -> None:
    """Refuses a teacher that is neither on this machine nor to be downloaded.

    Args:
        spec: ``MODEL:TAG`` in the names of open_clip; anything else is left to whoever loads it.
        repo: of the Hugging Face Hub; None for that of a default teacher.

    Raises:
        MilanError: with the address, the file, where to put it, and what needs no such file.
    """
    repo = repo or REPOS.get(spec)
    if repo is None or Path(spec).expanduser().exists() or _is_cached(repo):
        return
    endpoint = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
    why = _unreachable(endpoint)
    if why is None:
        return
    model = spec.partition(':')[0]
    raise MilanError(
        f'the teacher {spec} is not on this machine, and {endpoint} cannot be reached ({why}).\n'
        f'Its file is {endpoint}/{repo}/resolve/main/{WEIGHTS}\n'
        'Fetch it where there is a network, copy it here, and give it:\n'
        f'  --teacher {model}:/path/to/{WEIGHTS}   (milan pretrain)\n'
        f'  --cfg-options model.target_generator.pretrained=/path/to/{WEIGHTS}   (milan train)\n'
        f'or copy the folder models--{repo.replace("/", "--")} of another machine\'s cache into '
        f'{_cache()}.\n'
        'Without that file:\n'
        f'{_shipped()}'
        '  milan train-clip --data-root DIR --out clip   trains a small CLIP on your images and '
        'captions; then --teacher clip\n'
        '  milan train milan_mm::mae/vitb_pretrain.py --data-root DIR   is MAE, which needs no '
        'teacher\n'
        '  milan quickstart   shows the whole method on drawings that come with the package')


def _shipped() -> str:
    """The line about the teacher that comes with the package."""
    return ('  --teacher demo/teacher   is a small CLIP that comes with the package, trained on '
            'drawings: to try things out\n') if (RESOURCES / 'demo/teacher').is_dir() else ''


def _cache() -> Path:
    """The Hub's cache, as ``huggingface_hub`` documents its variables."""
    home = os.environ.get('HF_HOME') or Path(
        os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'huggingface'
    hub = os.environ.get('HF_HUB_CACHE') or os.environ.get('HUGGINGFACE_HUB_CACHE')
    return Path(hub or Path(home) / 'hub').expanduser()


def _is_cached(repo: str) -> bool:
    folder = _cache() / f'models--{repo.replace("/", "--")}' / 'snapshots'
    return any(path.exists() for path in folder.glob('*/*open_clip*')
               if path.suffix in ('.safetensors', '.bin'))


def _unreachable(endpoint: str) -> str | None:
    """Why there is no way to it; None if there is, as far as a connection tells."""
    for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'):
        if os.environ.get(name, '').upper() in ('1', 'ON', 'YES', 'TRUE'):
            return f'{name}={os.environ[name]} forbids it'
    address = urlsplit(getproxies().get(urlsplit(endpoint).scheme) or endpoint)
    port = address.port or (443 if address.scheme == 'https' else 80)
    failures: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, port), _SECONDS).close()
            failures.append(None)
        except OSError as error:
            failures.append(error)

    # In a thread: looking up a name has no time limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if not failures:
        return f'no answer from {address.hostname}:{port} in {_SECONDS} s'
    return f'{address.hostname}:{port}: {failures[0]}' if failures[0] else None
