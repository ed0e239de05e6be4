"""JupyterLab in a real browser: notebooks run, sliders move, and what was saved shows its picture again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from conftest import ALL, COUNTS, ROOT

pytestmark = pytest.mark.skipif(not ALL, reason="JupyterLab takes a minute to look at: make browser")

# Three small ones; all of them run, in the ci profile.
NOTEBOOKS = ["solutions/00_start_here", "solutions/04_the_mixed_edge", "solutions/08_the_enas_controller"]
SEARCH = (
    """
import torch
from torch import nn
from nasedu import CNN, DartsTrainer, accuracy, get_dataset, show

live = show.LiveCurves()
live
""",
    """
images, _ = get_dataset("shapes10", subset=128, input_size=8)
model = CNN(8, 3, 2, 10, 3, n_nodes=2)
sgd = torch.optim.SGD(model.parameters(), 0.025)
search = DartsTrainer(model, nn.CrossEntropyLoss(), accuracy, sgd, 3, images, batch_size=8, callbacks=[live])
search.fit();
""",
)
EXPLORER = "from nasedu.show import xi_explorer\n\nxi_explorer(start=0.2)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, folder) of a JupyterLab of our own, ended with the tests."""
    pytest.importorskip("jupyterlab", reason="no JupyterLab: pip install --editable '.[notebooks]'")
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder / f"{name.replace('/', '-')}.ipynb")
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for name, sources in {"explorer": [EXPLORER], "search": SEARCH}.items():
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--LabApp.collaborative=False"]
    home = {"JUPYTER_CONFIG_DIR": str(folder / ".config"), "JUPYTER_DATA_DIR": str(folder / ".data")}
    environment = {
        **os.environ,
        **home,
        "NASEDU_PROFILE": "ci",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("NASEDU_FRAMES", None)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text(encoding="utf-8")
                time.sleep(0.5)
        yield address, folder
    finally:
        server.terminate()
        server.wait(timeout=30)


def opened(chromium, address, name):
    """Open a notebook in a page of its own; return the page and what it does."""
    import eyes

    page = chromium.new_page(viewport=eyes.DESK)
    seen = eyes.watch(page)
    page.goto(f"{address}/lab/tree/{name}.ipynb?reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=60_000,
    )
    return page, seen


def run_all(page) -> None:
    page.set_default_timeout(120_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_jupyterlab_runs_a_notebook(chromium, lab, name):
    address, folder = lab
    page, seen = opened(chromium, address, name.replace("/", "-"))
    run_all(page)
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save').then(() => true)")
    page.close()
    saved = nbformat.read(folder / f"{name.replace('/', '-')}.ipynb", as_version=4)
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    COUNTS["notebooks run in JupyterLab"] += 1
    assert not seen.elsewhere, seen.elsewhere
    assert not [error for error in seen.errors if error.startswith("uncaught")], seen.errors


def test_a_search_shows_a_bar_and_its_live_view_from_the_first_second(chromium, lab):
    address, folder = lab
    page, _ = opened(chromium, address, "search")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    picture = page.wait_for_selector(".jp-OutputArea img", timeout=60_000)
    first = picture.get_attribute("src")
    # tqdm writes its spaces as wide as a figure
    page.wait_for_function(r"/epoch\s\d\sof\s3/.test(document.body.innerText)", timeout=60_000)
    page.wait_for_function(r"/epoch\s3\sof\s3/.test(document.body.innerText)", timeout=120_000)
    page.wait_for_function(
        "old => document.querySelector('.jp-OutputArea img').getAttribute('src') !== old", arg=first
    )
    page.wait_for_function("document.body.innerText.includes('24/24')", timeout=120_000)
    assert "train_loss=" in page.inner_text(".jp-NotebookPanel")
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save').then(() => true)")
    page.close()
    saved = nbformat.read(folder / "search.ipynb", as_version=4)
    (shown,) = saved.cells[0].outputs
    assert "training loss" in shown.data["text/plain"], "the file keeps the last picture"


def test_a_slider_moves_and_a_reopened_notebook_shows_its_picture(chromium, lab):
    address, folder = lab
    page, _ = opened(chromium, address, "explorer")
    run_all(page)
    handle = page.wait_for_selector(".nasedu-live [role=slider]")
    picture = page.wait_for_selector(".nasedu-live img")
    first = picture.get_attribute("src")
    assert not page.is_visible(".nasedu-flip"), "only one of the two is to be seen"

    moved = "old => document.querySelector('.nasedu-live img').getAttribute('src') !== old"
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(moved, arg=first)
    by_key = page.get_attribute(".nasedu-live img", "src")

    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 250, y, steps=8)
    page.mouse.up()
    page.wait_for_function(moved, arg=by_key)

    # Saved with live sliders in it; then the kernel is gone, as after a restart.
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save').then(() => true)")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)")
    page.close()
    (cell,) = nbformat.read(folder / "explorer.ipynb", as_version=4).cells
    assert "application/vnd.jupyter.widget-view+json" in json.dumps(cell.outputs)
    page, _ = opened(chromium, address, "explorer")
    page.wait_for_function("!document.body.innerText.includes('Loading widget')", timeout=20_000)
    page.wait_for_timeout(3000)  # JupyterLab looks for a lost widget for two seconds
    assert page.is_visible(".nasedu-flip img")
    assert page.evaluate("document.querySelector('.nasedu-flip img').naturalWidth") > 100
    assert "Error displaying widget" not in page.inner_text(".jp-NotebookPanel")
    page.close()


def test_a_notebook_from_elsewhere_shows_the_picture(chromium, lab, monkeypatch):
    """JupyterLab does not trust a file that it never ran, and takes scripts and styles out of its outputs."""
    from nasedu.show.sliders import xi_explorer

    address, folder = lab
    monkeypatch.setenv("NASEDU_FRAMES", "1")
    data, metadata = xi_explorer()._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    notebook = nbformat.read(folder / "explorer.ipynb", as_version=4)
    notebook.cells = [
        nbformat.v4.new_code_cell(EXPLORER + "  # fetched", outputs=[output], execution_count=1)
    ]
    nbformat.write(notebook, folder / "fetched.ipynb")
    page, _ = opened(chromium, address, "fetched")
    picture = page.wait_for_selector(".jp-OutputArea img")
    assert picture.is_visible() and picture.evaluate("one => one.naturalWidth") > 100
    page.close()
