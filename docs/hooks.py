# SPDX-License-Identifier: Apache-2.0
"""What mkdocs does besides: docstrings name other objects as :class:`X`, shown as X."""
import re


def on_post_page(output, page, config):
    return re.sub(r':(?:attr|class|data|func|meth|mod):(?=<code>)', '', output)
