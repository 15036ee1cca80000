# SPDX-License-Identifier: Apache-2.0
"""The captions of an image file."""
import re
from pathlib import Path

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CAMERA = re.compile(r'(img|dsc|dscn|dscf|image|photo|pic|screenshot|p|pxl|mvimg)', re.IGNORECASE)


def caption_of(path: Path, root: Path) -> str:
    """The first caption of an image; see :func:`captions_of`."""
    return captions_of(path, root)[0]


def captions_of(path: Path, root: Path) -> list[str]:
    """The lines of the text file beside the image, else '<class> <words of the file name>'.

    Each line is a caption of its own, as an image of COCO has five.

    Numbers and what cameras call their files ('IMG_2034') are no words: they would teach the
    text tower to tell files apart instead of things.

    Args:
        path: of the image, below ``root``.
        root: the folder whose sub-folders are the classes.
    """
    text = path.with_suffix('.txt')
    if text.is_file():
        lines = text.read_text(encoding='utf-8', errors='replace').splitlines()
        captions = [' '.join(line.split()) for line in lines if line.strip()]
        if captions:
            return captions
    parts = path.relative_to(root).parts
    folder = words_of(parts[0]) if len(parts) > 1 else []
    words = [w for w in words_of(path.stem) if not w.isdigit() and not _CAMERA.fullmatch(w)]
    if [w.lower() for w in words[:len(folder)]] == [w.lower() for w in folder]:
        words = words[len(folder):]
    return [' '.join(folder + words) or path.stem]


def words_of(name: str) -> list:
    """The words of a file's or folder's name: 'black_cat-2' gives black, cat, 2."""
    return _WORD.findall(name)
