import multiprocessing
import tempfile
from pathlib import Path

import gradio as gr


def made(text):
    path = Path(tempfile.mkdtemp()) / "pool.txt"
    path.write_text(text)
    return str(path)


def by_pool(text):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(made, (text,))


gr.Interface(by_pool, gr.Textbox("from a process"), gr.File()).launch()
