# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of demo/milan_tour.ipynb, and keeps what they print and show in it.

  python demo/run_tour.py

It takes neither Jupyter nor a second process; the tests run the notebook by it too. In Jupyter it
runs as any other.
"""
import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name('milan_tour.ipynb')


def execute(notebook: dict) -> dict:
    """The notebook with the outputs of its cells, run in this process."""
    names: dict[str, Any] = {}
    number = 0
    for cell in notebook['cells']:
        if cell['cell_type'] != 'code':
            continue
        number += 1
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            shown = run_cell(''.join(cell['source']), names)
        cell.update(execution_count=number, outputs=outputs_of(said.getvalue(), shown))
    return notebook


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Runs it; gives the value of its last line, where that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), 'cell', 'exec'), names)
    return None if last is None else eval(
        compile(ast.Expression(last.value), 'cell', 'eval'), names)


def outputs_of(said: str, shown: Any) -> list[dict]:
    outputs: list[dict] = []
    # Of a progress bar the last state.
    lines = [line.rpartition('\r')[2] for line in said.replace('\r\n', '\n').splitlines(True)]
    if ''.join(lines).strip():
        outputs.append(dict(output_type='stream', name='stdout', text=lines))
    if hasattr(shown, '_repr_png_'):
        outputs.append(dict(output_type='display_data', metadata={}, data={
            'image/png': base64.b64encode(shown._repr_png_()).decode(),
            'text/plain': ['<an image>']}))
    return outputs


def main() -> None:
    notebook = execute(json.loads(NOTEBOOK.read_text(encoding='utf-8')))
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + '\n'
    NOTEBOOK.write_text(text, encoding='utf-8')
    print(f'{NOTEBOOK}: {len(text) / 1024:.0f} KB')


if __name__ == '__main__':
    main()
