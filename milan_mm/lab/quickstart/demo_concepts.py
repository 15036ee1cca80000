# SPDX-License-Identifier: Apache-2.0
"""What is drawn in the demo archive: classes, names, groups of near-duplicates, the split.

A concept is one entry of the archive: one name, drawn in each style. Held-out concepts measure
whether features carry over to things never seen; with a 'woman farmer' held out and the 'man
farmer' trained on, they would measure memory. Concepts of one group therefore always fall on the
same side of the split, and a concept falls on the same side in every style.
"""
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

CLASSES = {
    'animal': ('animal-mammal', 'animal-bird', 'animal-marine', 'animal-bug', 'animal-reptile',
               'animal-amphibian'),
    'building': ('place-building', 'place-religious'),
    'clothing': ('clothing',),
    'face': ('face-affection', 'face-concerned', 'face-glasses', 'face-hand', 'face-hat',
             'face-negative', 'face-neutral-skeptical', 'face-sleepy', 'face-smiling',
             'face-tongue', 'face-unwell'),
    'flag': ('country-flag',),
    'food': ('food-fruit', 'food-vegetable', 'food-prepared', 'food-asian', 'food-sweet',
             'drink'),
    'hand': ('hand-fingers-closed', 'hand-fingers-open', 'hand-fingers-partial', 'hand-prop',
             'hand-single-finger', 'hands'),
    'person': ('person', 'person-activity', 'person-fantasy', 'person-gesture',
               'person-resting', 'person-role', 'person-sport'),
    'plant': ('plant-flower', 'plant-other'),
    'sign': ('alphanum', 'arrow', 'av-symbol', 'keycap', 'transport-sign', 'warning', 'zodiac'),
    'thing': ('book-paper', 'office', 'mail', 'computer', 'phone', 'light & video', 'household',
              'musical-instrument', 'tool', 'writing'),
    'vehicle': ('transport-ground', 'transport-air', 'transport-water'),
    'weather': ('sky & weather',),
}  # yapf: disable
"""The classes of the evaluation: subcategories of the archive, like ones put together."""


_VARIATIONS = {
    '1F468', '1F469', '1F9D1', '1F466', '1F467', '1F9D2',  # man, woman, person, boy, girl, child
    '200D', 'FE0F', '2640', '2642', '27A1',  # joiner, presentation, female, male, facing right
    '2B1B', '2744', '1F9BA', '1F525',  # black cat, polar bear, service dog, phoenix
}  # yapf: disable
"""Parts of a Unicode sequence which vary the drawing but not what it is of."""

_SAME = (
    ('keycap', 'keycap|hash key'),
    ('letter', 'squared latin capital letter'),
    ('ideograph', 'ideograph|katakana'),
    ('input', 'input symbol'),
    ('arrow', 'arrows?( with hook)?$|arrow pointing|with .* arrow above'),
    ('player', 'triangle|(track|pause|stop|record|eject) button'),
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
    ('moon', 'moon symbol|moon with face|crescent moon'),
    ('book', '(green|blue|orange|closed) book|^notebook'),
    ('mailbox', 'mailbox'),
    ('chart', 'chart'),
    ('magnifier', 'magnifying glass'),
    ('train', 'high-speed train'),
    ('tram', 'tram( car)?$|^light rail|^metro$'),
    ('umbrella', 'umbrella(?! and)'),
    ('snowman', 'snowman'),
    ('cloud', 'cloud'),
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
    ('cable car', 'cableway|tramway'),
    ('hotel', 'hotel$'),
    ('ship', '^ship$|passenger ship|^ferry$'),
    ('coat', '(health|office) worker|scientist'),
    ('house', '^house building|^house with'),
    ('mountain', 'mountain$|mount fuji'),
    ('skull', '^skull'),
    ('boot', 'boots?$'),
    ('whale', 'whale$'),
    ('glasses', '^clinking glasses|^tumbler'),
)
"""Groups that the code points do not show: a name, and a pattern on the lower-case name."""


class Concept(NamedTuple):
    """One entry of the archive that belongs to a class.

    ``group`` names the near-duplicates it belongs to, ``cell`` is its place on the sheets.
    """
    name: str
    file_name: str
    label: str
    group: str
    cell: int


def plain_name(name: str) -> str:
    """The Unicode name as one would say it, lower case, without words such as 'symbol'."""
    name = re.sub(r"[^a-z0-9&’' -]", '', name.lower())
    name = re.sub(r' +(sign|symbol|emblem)( with|$)', r'\2', name)
    return re.sub(r'\s+', ' ', name).strip()


def group_of(name: str, unified: str, category: str) -> str:
    """The group of near-duplicates: by the name, else by what is left of the code points.

    Args:
        name: of the entry.
        unified: its code points, such as '1F468-200D-1F33E' (man, joined with, ear of rice).
        category: groups do not reach across categories.
    """
    lower = name.lower()
    for group, pattern in _SAME:
        if re.search(pattern, lower):
            return f'{category}/{group}'
    points = unified.split('-')
    if category == 'People & Body' or '200D' in points:
        left = [point for point in points if point not in _VARIATIONS]
        return f'{category}/{"-".join(left) or "people"}'
    return f'{category}/{re.sub("^oncoming | faces?$", "", lower)}'


def read_concepts(index: list[dict]) -> tuple[list[Concept], dict[str, int]]:
    """The concepts that have a class, in the index's order.

    Args:
        index: the entries of the archive's ``index.json``.

    Returns:
        The concepts, and how many entries of which subcategory belong to no class.
    """
    labels = {sub: label for label, subs in CLASSES.items() for sub in subs}
    concepts, without, taken = [], Counter[str](), set()
    for entry in index:
        label = labels.get(entry['subcategory'])
        if label is None:
            without[f'{entry["category"]}/{entry["subcategory"]}'] += 1
            continue
        name = plain_name(entry['name'])
        file_name = re.sub('[^a-z0-9]+', '_', name).strip('_')
        if file_name in taken:
            file_name = f'{file_name}_{entry["unified"].lower()}'
        taken.add(file_name)
        group = group_of(entry['name'], entry['unified'], entry['category'])
        concepts.append(Concept(name, file_name, label, group, entry['cell']))
    return concepts, dict(sorted(without.items()))


def split_concepts(concepts: list[Concept], held_out: float, most: int,
                   seed: int) -> tuple[list[Concept], list[Concept]]:
    """Draws the training and the held-out concepts, class by class, whole groups at a time.

    Args:
        concepts: all of them.
        held_out: share of a class's concepts that is held out.
        most: concepts a class; of a larger class so many are drawn, that none outweighs the rest.
        seed: of the draw.
    """
    train: list[Concept] = []
    test: list[Concept] = []
    labels: dict[str, str] = {}
    for concept in concepts:  # a group that reaches across classes counts in the first
        labels.setdefault(concept.group, concept.label)
    for number, label in enumerate(sorted(set(labels.values()))):
        rng = np.random.default_rng([seed, number])
        groups = [group for group, of in labels.items() if of == label]
        chosen: list[list[Concept]] = []
        for i in rng.permutation(len(groups)):
            members = [concept for concept in concepts if concept.group == groups[i]]
            if sum(map(len, chosen)) + len(members) <= most:
                chosen.append(members)
        wanted = round(held_out * sum(map(len, chosen)))
        for members in chosen:
            fits = sum(c.label == label for c in test) + len(members) <= wanted
            (test if fits else train).extend(members)
    return train, test
