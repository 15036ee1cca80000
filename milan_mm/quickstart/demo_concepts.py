# SPDX-License-Identifier: Apache-2.0
"""What is drawn in the demo archive: classes, captions, and groups of near-duplicates that must not be torn apart.

A concept is one entry of the archive (one name, drawn in each style). Held-out concepts measure whether features carry over
to things never seen; a 'woman farmer' held out while the 'man farmer' is trained on would measure memory instead. Concepts
of one group therefore always fall on the same side of the split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_PERSON_PARTS = {
    '1F468', '1F469', '1F9D1', '1F466', '1F467', '1F9D2',  # man, woman, person, boy, girl, child
    '200D', 'FE0F', '2640', '2642', '27A1',  # joiner, presentation, female, male, facing right
    '2B1B', '2744', '1F9BA', '1F525',  # black (cat, bird), snow (polar bear), vest (service dog), fire (phoenix, heart)
}  # fmt: skip
"""Parts of a Unicode sequence which vary the drawing but not what it is of."""

_SAME = (
    ('pregnant', 'pregnant (wo)?man|pregnant person'),
    ('bunny ears', 'bunny ears'),
    ('dancing', 'dancer|man dancing'),
    ('older', 'older (man|woman|adult)'),
    ('royal', 'prince|princess|person with crown'),
    ('claus', '(father|mother|mx) (christmas|claus)'),
    ('holding hands', 'holding hands'),
    ('suit', 'tuxedo|in suit'),
    ('blond', 'blond hair'),
    ('beard', 'beard'),
    ('veil', 'veil'),
    ('clock face', 'clock face'),
    ('plain heart', '^(heavy black|blue|green|yellow|purple|black|white|brown|orange|light blue|grey|pink) heart$'),
    ('hearts', '(two|revolving|beating|growing|sparkling) hearts?'),
    ('moon', 'moon symbol|moon with face|crescent moon'),
    ('globe', 'earth globe'),
    ('book', '(green|blue|orange|closed) book|^notebook'),
    ('banknote', 'banknote'),
    ('mailbox', 'mailbox'),
    ('magnifier', 'magnifying glass'),
    ('chart', 'chart'),
    ('speaker', '^speaker'),
    ('bell', '^bell( with cancellation)?'),
    ('lock', 'lock$|lock with'),
    ('medal', 'place medal'),
    ('train', 'high-speed train'),
    ('tram', 'tram( car)?$|^light rail|^metro$'),
    ('umbrella', 'umbrella(?! and)'),
    ('snowman', 'snowman'),
    ('cloud', 'cloud'),
    ('hourglass', 'hourglass'),
    ('airplane', '^(small )?airplane'),
    ('beer', 'beer mug'),
    ('apple', '(red|green) apple'),
    ('envelope', 'envelope(?!.*gift)|^e-mail'),
    ('folder', 'file folder'),
    ('calendar', 'calendar$'),
    ('page', '^page '),
    ('camera', '^camera'),
    ('disc', '(optical disc|dvd)$'),
    ('ruler', ' ruler$'),
    ('camel', 'camel$'),
    ('chick', 'chick$'),
    ('trays', '(inbox|outbox) tray'),
    ('post office', 'post office'),
    ('kitchen plate', 'fork and knife'),
    ('pushpin', 'pushpin'),
    ('paperclip', 'paperclip'),
    ('fist', '(left|right)-facing fist'),
    ('thumbs', 'thumbs (up|down)'),
    ('sideways hand', '(right|left)wards (pushing )?hand'),
    ('palm', 'palm (up|down) hand'),
    ('pointing', 'pointing (backhand )?index'),
    ('leaves', 'leaf$|maple leaf'),
    ('tree', '(evergreen|deciduous) tree'),
    ('clover', 'clover|shamrock'),
    ('nest', 'nest'),
    ('suit of cards', ' suit$'),
    ('city', 'cityscape|sunset over buildings|night with stars|bridge at night'),
    ('sunrise', '^sunrise'),
    ('cable car', 'cableway|tramway'),
    ('house', '^house building|^house with'),
    ('mountain', 'mountain$|mount fuji'),
    ('skull', '^skull'),
    ('musical notes', 'musical notes?$'),
    ('boot', 'boots?$'),
    ('monkey', '-no-evil'),
    ('whale', 'whale$'),
    ('glasses', '^clinking glasses|^tumbler'),
)
"""Names of one group where the code points do not show it (group, pattern on the lower-case name)."""


class Concept(NamedTuple):
    """One entry of the archive."""

    name: str
    short_name: str
    label: str
    group: str
    cell: int


def plain_name(name: str) -> str:
    """The Unicode name as one would say it: lower case, without jargon such as 'symbol' or 'with ... hand sign'."""
    name = re.sub(r'[^a-z0-9&’\' -]', '', name.lower().replace('-o-', ' o '))
    name = re.sub(r'\b(sign|symbol|emblem)\b', '', name)
    return re.sub(r'\s+', ' ', name).strip()


def group_of(name: str, unified: str, category: str) -> str:
    """The group of near-duplicates of an entry: by its name, else by what is left of its code points."""
    plain = name.lower()
    for group, pattern in _SAME:
        if re.search(pattern, plain):
            return f'{category}/{group}'
    plain = re.sub(r'^(oncoming) | faces?$', '', plain)
    parts = [part for part in unified.split('-') if part not in _PERSON_PARTS]
    if category == 'People & Body' or '200D' in unified.split('-'):
        return f'{category}/{"-".join(parts) or "people"}'
    return f'{category}/{plain}'
