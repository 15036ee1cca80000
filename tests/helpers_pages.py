# SPDX-License-Identifier: Apache-2.0
"""What every page has to keep to."""
from html.parser import HTMLParser

POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
          "form-action 'none'")


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside style sheets."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], '', []
        self.feed(str(text))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if 'style' not in self.open:
            self.text += data

    def attributes(self, *names):
        return [value for _, attrs in self.elements for name, value in attrs.items()
                if name in names]


def check_page(path, evil):
    """Loads nothing, runs nothing, can be read by everybody; ``evil`` is text in it, no markup."""
    text = path.read_text(encoding='utf-8')
    page = Elements(text)
    assert [attrs['content'] for tag, attrs in page.elements
            if attrs.get('http-equiv') == 'Content-Security-Policy'] == [POLICY]
    loaded = page.attributes('src', 'href', 'srcset', 'data', 'poster', 'action', 'xlink:href')
    assert loaded and all(address.startswith('data:') for address in loaded)
    assert '@import' not in text and 'url(' not in text and '://' not in text
    tags = [tag for tag, _ in page.elements]
    assert not {'script', 'iframe', 'object', 'embed', 'base', 'form'} & set(tags)
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith('on')]
    assert evil in page.text and evil not in text
    ids = page.attributes('id')
    assert len(ids) == len(set(ids))
    assert dict(page.elements)['html'] == dict(lang='en') and 'prefers-color-scheme: dark' in text
    levels = [int(tag[1]) for tag in tags if tag in ('h1', 'h2', 'h3', 'h4', 'h5', 'h6')]
    assert levels.count(1) == 1 and all(b <= a + 1 for a, b in zip([0, *levels], levels))
    for tag, attrs in page.elements:
        assert tag != 'img' or attrs['alt'] and 'loading' not in attrs  # lazy ones print blank
        assert tag != 'svg' or attrs['role'] == 'img' and attrs['aria-label']
    return page
