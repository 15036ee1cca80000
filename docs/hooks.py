# SPDX-License-Identifier: Apache-2.0
"""What mkdocs does besides."""
import re

# What Material would load from another server, for the search in pages opened as files.
_SHIM = 'https://unpkg.com/iframe-worker/shim'


def on_post_page(output, page, config):
    """Docstrings' :class:`X` becomes X; the search works from files, and without a network."""
    output = on_post_template(output)
    return re.sub(r':(?:attr|class|data|func|meth|mod):(?=<code>)', '', output)


def on_post_template(output, template_name=None, config=None):
    """The same for 404.html; and the search gets the name that a dialog must have."""
    output = output.replace('class="md-search"', 'class="md-search" aria-label="Search"')
    return output.replace(_SHIM, 'javascripts/search_from_files.js')
