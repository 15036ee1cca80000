# SPDX-License-Identifier: Apache-2.0
"""The quickstart's images with another subject size, or another ground."""
import numpy as np
import pytest
from PIL import Image

from milan_mm.cli import quickstart
from milan_mm.errors import MilanError
from milan_mm.lab.quickstart.backgrounds import SCALE
from milan_mm.lab.quickstart.composition import COMPOSITIONS, Composition
from milan_mm.lab.quickstart.data_folder import render
from milan_mm.lab.quickstart.images import make_images


def test_the_command_line_has_all_of_them():
    assert quickstart.COMPOSITIONS == COMPOSITIONS


def test_ground_of_a_class_is_the_same_in_both_parts():
    how = Composition('class-ground', 0, ['cat', 'dog'])
    assert how.pool('train', 'cat') is how.pool('test', 'cat') and how.scale == SCALE
    assert not np.array_equal(how.pool('test', 'cat').pool, how.pool('test', 'dog').pool)
    again = Composition('class-ground', 0, ['dog', 'cat'])
    assert np.array_equal(again.pool('train', 'dog').pool, how.pool('train', 'dog').pool)


def test_otherwise_the_ground_knows_nothing_of_the_class():
    how = Composition('textured', 0, ['cat', 'dog'])
    assert how.pool('train', 'cat') is how.pool('train', 'dog') is not how.pool('test', 'dog')
    assert how.scale == SCALE


def test_a_subject_that_fills_the_image():
    """A white square covers at least .95 squared of the image, but for what turning cuts off."""
    ground = Composition('class-ground', 0, ['cat']).pool('train', 'cat')
    cutout = Image.new('RGBA', (64, 64), 'white')
    shares = {name: np.mean([
        (np.asarray(render(cutout, ground, 64, 0, str(number), scale)) > 250).all(-1).mean()
        for number in range(20)]) for name, scale in dict(
            filling=Composition('filling', 0, []).scale, textured=SCALE).items()}
    assert shares['filling'] > .8 and .3 < shares['textured'] < .7


def test_what_cannot_be(tmp_path):
    with pytest.raises(MilanError, match="unknown composition 'sparse'; known are textured"):
        Composition('sparse', 0, [])
    with pytest.raises(MilanError, match='leave it out with images of your own'):
        make_images(tmp_path / 'out', tmp_path, composition='filling')
    assert not (tmp_path / 'out').exists()
