"""A real JupyterLab in a real browser: opens a notebook, runs it, moves its figures by keyboard, reports every fault.

python -m tests.lab NOTEBOOK.ipynb PICTURE.png [--dark] [--width 1100]    runs a notebook and photographs all of it
"""

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    # All cells get their DOM; otherwise widgets of cells off the screen never render.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
# Console messages of JupyterLab itself that say nothing about a notebook.
NOISE = re.compile(r"/lsp/status|net::ERR_ABORTED|Could not restore the debugger state|favicon|Failed to load resource")


def chromium():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Move:
    """One control, moved one step by keyboard."""

    figure: int
    control: str
    changed: bool
    milliseconds: float


@dataclass
class Report:
    """What happened to one notebook."""

    errors: list = field(default_factory=list)  # of cells
    broken: list = field(default_factory=list)  # widgets that did not render, figures that show an exception
    scripts: list = field(default_factory=list)  # JavaScript exceptions and console errors
    silent: list = field(default_factory=list)  # pictures without alternative text
    moves: list = field(default_factory=list)
    stderr: list = field(default_factory=list)
    figures: int = 0
    predictions: int = 0
    seconds: float = 0.0

    @property
    def faults(self):
        """Every reason to refuse the notebook, in words."""
        alive = {move.figure for move in self.moves if move.changed}
        dead = [
            f"figure {number}: its controls were moved by keyboard and no picture changed"
            for number in range(1, self.figures + 1)
            if number not in alive
        ]
        return self.errors + self.broken + self.scripts + self.silent + dead

    def __str__(self):
        times = sorted(m.milliseconds for m in self.moves if m.changed)
        pace = f", {times[len(times) // 2]:.0f} ms median, {times[-1]:.0f} ms worst" if times else ""
        still = [f"{move.control!r} (figure {move.figure})" for move in self.moves if not move.changed]
        pace += f", no effect from {', '.join(still)}" if still else ""
        return (
            f"{self.figures} figures, {self.predictions} predictions, {len(self.moves)} controls moved{pace}; "
            f"{len(self.faults)} faults; {self.seconds:.1f} s"
        )


class Lab:
    """One JupyterLab server and one browser. It runs copies of notebooks: the originals are never written."""

    def __init__(self):
        from playwright.sync_api import sync_playwright

        self.folder = Path(tempfile.mkdtemp(prefix="lab-"))
        self.notebooks = self.folder / "notebooks"
        self.notebooks.mkdir()
        self.token, self.port = secrets.token_hex(16), _free_port()
        self.server = self.playwright = self.page = None
        self.scripts = []  # exceptions and console errors of the open notebook
        try:
            self._start()
            self.playwright = sync_playwright().start()
            self.browser = self.playwright.chromium.launch(
                executable_path=chromium(),
                headless=True,
                args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"],
            )
        except BaseException:
            self.close()
            raise

    def _start(self):
        for name, values in SETTINGS.items():
            path = self.folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        environment = (
            os.environ
            | {name: str(self.folder / place) for name, place in places.items()}
            | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep),
                "COURSE_FAST": "1",
                "LAYER_BY_LAYER": "",
            }
        )
        self.log = (self.folder / "server.log").open("wb")
        self.server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={self.port}",
                f"--ServerApp.root_dir={self.notebooks}",
                f"--IdentityProvider.token={self.token}",
                "--LabApp.expose_app_in_browser=True",
                "--LabApp.news_url=None",
            ],
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=self.notebooks,
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("JupyterLab did not start:\n" + (self.folder / "server.log").read_text()[-3000:])
            time.sleep(0.1)

    def _answers(self):
        try:
            return (
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status?token={self.token}", timeout=5).status
                == 200
            )
        except (urllib.error.URLError, OSError):
            return False

    def close(self):
        """Stops what was started and removes the folder."""
        if self.playwright:
            self.playwright.stop()
        if self.server:
            self.server.terminate()
            try:
                self.server.wait(15)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @contextmanager
    def open(self, notebook, width=1100, dark=False):
        """The notebook in JupyterLab's page, its kernel ready, and what the browser complains of from then on.

        The page serves all notebooks in turn, since loading JupyterLab takes longer than most of them; after trouble
        the next notebook gets a new one.
        """
        name = f"{secrets.token_hex(4)}_{Path(notebook).name}"
        shutil.copy(notebook, self.notebooks / name)
        page = self.page = self.page or self._load()
        page.set_viewport_size({"width": width, "height": 900})
        try:
            page.evaluate(_OPEN, [name, "JupyterLab Dark" if dark else "JupyterLab Light"])
            page.wait_for_selector(f"body[data-jp-theme-light={'false' if dark else 'true'}]", state="attached")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
            page.wait_for_function(_KERNEL_IDLE, timeout=60_000)
            self.scripts.clear()
            yield page, self.scripts
            page.evaluate(_CLOSE)
        except BaseException:
            page.close()
            self.page = None
            raise

    def _load(self):
        page = self.browser.new_page()
        page.on("pageerror", lambda error: self.scripts.append(f"JavaScript: {error}"))
        page.on(
            "console",
            lambda message: (
                self.scripts.append(f"console: {message.text[:300]}")
                if message.type == "error" and not NOISE.search(message.text)
                else None
            ),
        )
        page.goto(f"http://127.0.0.1:{self.port}/lab?reset&token={self.token}")
        page.wait_for_function("window.jupyterapp", timeout=60_000)
        page.evaluate("jupyterapp.restored")
        return page

    def examine(self, notebook, only_first=False, move=True, screenshot=None, **options):
        """Runs a notebook (all of it, or its first code cell) and moves every control of its figures."""
        began, report = time.monotonic(), Report()
        with self.open(notebook, **options) as (page, scripts):
            page.evaluate(_RUN, only_first)
            page.wait_for_function(_ALL_RUN, timeout=60_000)
            self._read_cells(page, report, only_first)
            self._await_widgets(page, report)
            if screenshot:
                photograph(page, screenshot)
            if move:
                _move_everything(page, report)
            report.silent += page.evaluate(_SILENT)
            report.scripts += list(dict.fromkeys(scripts))
        report.seconds = time.monotonic() - began
        return report

    @staticmethod
    def _read_cells(page, report, only_first):
        for number, cell in enumerate(page.evaluate(_CELLS)):
            intended = cell["tolerated"] and not cell["graded"]
            for output in cell["outputs"]:
                if output["output_type"] == "error" and not intended:
                    report.errors.append(f"cell {number}: {output['ename']}: {output['evalue']}")
                elif output.get("name") == "stderr":
                    report.stderr.append(f"cell {number}: {output['text'][:300]}")
            if cell["waiting"] and not only_first and not report.errors:
                report.errors.append(f"cell {number} was not run")

    @staticmethod
    def _await_widgets(page, report):
        """Every cell with a widget in its output must show one."""
        deadline = time.monotonic() + 15
        while (missing := page.evaluate(_UNRENDERED)) and time.monotonic() < deadline:
            if any("could not be shown" in m for m in missing):
                break
            page.wait_for_timeout(100)
        report.broken += missing


def photograph(page, path):
    """The whole notebook in one picture: the page does not scroll, so the window is made as tall as the notebook."""
    page.evaluate("jupyterapp.shell.collapseLeft(); jupyterapp.shell.collapseRight()")
    for _ in range(2):  # a first pass, since what becomes visible may grow
        top, bottom = page.evaluate(_EXTENT)
        page.set_viewport_size({"width": page.viewport_size["width"], "height": min(round(top + bottom) + 60, 30_000)})
        page.wait_for_timeout(400)
    box = page.locator(".jp-NotebookPanel-notebook").bounding_box()
    page.screenshot(path=path, clip=box | {"height": min(box["height"], bottom + 30)})


def _move_everything(page, report):
    for number, figure in enumerate(page.locator(".lbl-explorer").all(), 1):
        report.figures += 1
        faults = [_error_of(figure)]
        for control in figure.locator(
            ".widget-slider, .widget-dropdown, .widget-toggle-buttons, .widget-checkbox"
        ).all():
            report.moves.append(_move(page, number, figure, control, faults))
        report.broken += [f"figure {number} shows: {fault}" for fault in dict.fromkeys(filter(None, faults))]
    for number, question in enumerate(page.locator(".lbl-predict").all(), 1):
        report.predictions += 1
        _guess(page, number, question, report)


def _error_of(figure):
    shown = figure.locator(".lbl-error")
    return shown.first.inner_text()[:200] if shown.count() else ""


def _move(page, number, figure, control, faults):
    """One step by keyboard and back; the time from the key press to the first frame with the new picture."""
    target, keys, back = _keys(control)
    label = control.locator(".widget-label, .widget-label-basic").last.inner_text().strip()
    taken = _press(page, figure, target, keys)
    faults.append(_error_of(figure))
    if taken >= 0:
        target = control.locator("button").nth(back) if isinstance(back, int) else target
        _press(page, figure, target, ["Space"] if isinstance(back, int) else back)
    return Move(number, label, taken >= 0, taken)


def _keys(control):
    """Where to put the focus, what to press, and what undoes it (or which button does)."""
    kind = control.get_attribute("class")
    if "widget-slider" in kind:
        handle = control.locator(".noUi-handle").first
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        there, back = ["ArrowRight"], ["ArrowLeft"]
        return (handle, back, there) if at_end else (handle, there, back)
    if "widget-dropdown" in kind:  # its list has to be open: JupyterLab takes the arrow keys of a closed one
        options = control.locator("select")
        at_end = options.evaluate("s => s.selectedIndex === s.options.length - 1")
        down, up = ["Space", "ArrowDown", "Enter"], ["Space", "ArrowUp", "Enter"]
        return (options, up, down) if at_end else (options, down, up)
    if "widget-toggle-buttons" in kind:
        pressed = control.evaluate("c => [...c.querySelectorAll('button')].findIndex(b => b.matches('.mod-active'))")
        return control.locator("button").nth(0 if pressed else 1), ["Space"], pressed
    return control.locator("input"), ["Space"], ["Space"]


def _press(page, figure, target, keys):
    target.focus()
    figure.evaluate(_WATCH)
    for key in keys:
        page.keyboard.press(key)
    return page.evaluate("window.lblWatch")


def _guess(page, number, question, report):
    """A guess by keyboard must reveal something."""
    text = question.locator("input[type=text]")
    if text.count():
        text.first.focus()
        page.keyboard.type("1")
    else:
        question.locator(".widget-toggle-buttons button").first.focus()
        page.keyboard.press("Space")
    if _press(page, question, question.locator("button").last, ["Enter"]) < 0:
        report.broken.append(f"prediction {number}: nothing was revealed after a guess")
    elif _error_of(question):
        report.broken.append(f"prediction {number} shows: {_error_of(question)}")


_OPEN = """async ([path, theme]) => {
  await jupyterapp.commands.execute('apputils:change-theme', {theme});
  const notebook = await jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'});
  jupyterapp.shell.activateById(notebook.id);  // commands run the active notebook's cells
}"""
_CLOSE = """async () => {
  const notebook = jupyterapp.shell.currentWidget;
  await notebook.sessionContext.shutdown().catch(() => null);
  notebook.dispose();
}"""
_KERNEL_IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
# The command that runs all cells returns at the first error, a tolerated one included, and cells run on.
_ALL_RUN = f"""{_KERNEL_IDLE} && ![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.innerText.includes('*'))
  && jupyterapp.shell.currentWidget.content.widgets.find(c => c.model.type === 'code').model.executionCount !== null"""
_RUN = """async (only_first) => {
  const {content, context, sessionContext} = jupyterapp.shell.currentWidget;
  await Promise.all([context.ready, sessionContext.ready]);  // else the command does nothing and says nothing
  content.activeCellIndex = content.widgets.findIndex(cell => cell.model.type === 'code');
  await jupyterapp.commands.execute(only_first ? 'notebook:run-cell' : 'notebook:run-all-cells');
}"""
_CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map(cell => {
  const code = cell.model.type === 'code', grader = cell.model.getMetadata('nbgrader') || {};
  return {
    outputs: (code ? cell.model.outputs.toJSON() : [])
      .map(o => ({...o, data: null, text: [o.text || ''].flat().join('')})),
    tolerated: (cell.model.getMetadata('tags') || []).includes('raises-exception'),
    graded: Boolean(grader.grade),
    waiting: code && cell.model.sharedModel.getSource().trim() !== '' && cell.model.executionCount === null,
  };
})"""
# Where the notebook begins on the page, and how high all its cells are (the page leaves room to scroll past the end).
_EXTENT = """() => {
  const panel = document.querySelector('.jp-WindowedPanel-outer'), cells = panel.querySelectorAll('.jp-Cell');
  panel.scrollTop = 0;
  const start = panel.getBoundingClientRect().top;
  return [start, cells[cells.length - 1].getBoundingClientRect().bottom - start];
}"""
_UNRENDERED = """() => jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, number) => {
  if (cell.model.type !== 'code') return [];
  const views = cell.model.outputs.toJSON().filter(o => o.data?.['application/vnd.jupyter.widget-view+json']).length;
  if (!views) return [];
  const failed = cell.node.querySelector('.jupyter-widgets-error-widget');
  if (failed) return [`cell ${number}: a widget could not be shown: ${failed.innerText.slice(0, 200)}`];
  const seen = [...cell.node.querySelectorAll('.jp-OutputArea-output .jupyter-widgets')]
    .filter(w => !w.parentElement.closest('.jupyter-widgets') && w.offsetHeight > 0).length;
  return seen < views ? [`cell ${number}: ${views - seen} of ${views} widgets did not render`] : [];
})"""
_SILENT = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].flatMap((cell, number) =>
  [...cell.querySelectorAll('.jp-OutputArea-output :is(img, svg, canvas), .jp-MarkdownOutput img')]
    .filter(picture => !picture.closest('.jupyter-button, .jupyter-widgets-error-widget, [aria-hidden=true]'))
    .filter(picture => !picture.parentElement.closest('svg'))
    // "Image" is what JupyterLab says of an <img> that says nothing
    .filter(picture => ['', 'Image'].includes(picture.alt || picture.getAttribute('aria-label')
                                              || picture.querySelector('title')?.textContent || ''))
    .map(picture => `cell ${number}: <${picture.tagName.toLowerCase()}> without alternative text`))"""
# Resolves to the milliseconds from the next key press to the first frame in which the figure differs; -1 after 3 s.
_WATCH = """figure => {
  const look = () => [...figure.querySelectorAll('.widget-html-content')].map(html => html.innerHTML).join();
  const before = look();
  let pressed = null;
  figure.addEventListener('keydown', () => pressed ??= performance.now(), {capture: true, once: true});
  const give_up = performance.now() + 3000;
  window.lblWatch = new Promise(done => {
    const frame = () => {
      const now = performance.now();
      if (pressed !== null && look() !== before) done(now - pressed);
      else if (now > give_up) done(-1);
      else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
}"""


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description="Run a notebook in JupyterLab and photograph all of it.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--dark", action="store_true", help="use JupyterLab's dark theme")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--move", action="store_true", help="then move every control, too")
    options = parser.parse_args()
    with Lab() as lab:
        report = lab.examine(
            options.notebook, screenshot=options.picture, dark=options.dark, width=options.width, move=options.move
        )
    print(report, *report.faults, *report.stderr, sep="\n")


if __name__ == "__main__":
    main()
