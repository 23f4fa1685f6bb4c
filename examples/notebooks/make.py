"""Make the notebooks from the example scripts, and run them.

    python examples/notebooks/make.py [NAME ...]

The docstring becomes the title, a comment that stands alone becomes text, what lies between becomes
a cell. Outputs are kept.
"""

from __future__ import annotations

import re
import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent
NAMES = (
    *("app_from_traffic", "adapter_quickstart", "adapter_two_layer", "adapter_custom"),
    *("embedding_sentence_transformers", "embedding_model", "reranker_quickstart"),
    *("router_query_engine", "judge_distil", "llm_distillation", "llm_text_to_sql"),
    *("llm_output_style", "llm_function_calling"),
)
"""Scripts that are notebooks too: one for each thing that this package tunes."""
ALONE = re.compile(r"(?:^|(?<=\n\n))((?:#(?: .*)?\n)+)(?=\n|\Z)")
SECONDS = 600


def notebook_of(script: Path) -> NotebookNode:
    """The script as a notebook without outputs."""
    docstring, code = script.read_text(encoding="utf-8").split('"""\n', 1)
    title, _, text = docstring.removeprefix('"""').partition("\n")
    found = [_text(f"# {title}\n{text}")]
    for number, part in enumerate(ALONE.split(code.lstrip("\n"))):
        if not part.strip():
            continue
        if number % 2:
            found.append(_text("\n".join(line[2:] for line in part.splitlines())))
        else:
            found.append(nbformat.v4.new_code_cell(part.strip()))
    for number, cell in enumerate(found):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=found, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )


def _text(markdown: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(markdown.strip())


def run(notebook: NotebookNode, folder: str) -> NotebookNode:
    """Run it in a folder; what it prints stays in it, without what libraries warn of."""
    place = {"metadata": {"path": folder}}
    client = NotebookClient(notebook, timeout=SECONDS, resources=place, record_timing=False)
    kept = deepcopy(notebook.metadata)  # the kernel adds its version
    client.execute()
    notebook.metadata = kept
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


def main(names: list[str]) -> None:
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            made = run(notebook_of(SCRIPTS / f"{name}.py"), folder)
        nbformat.write(made, HERE / f"{name}.ipynb")
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
