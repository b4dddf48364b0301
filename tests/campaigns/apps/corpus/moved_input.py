from pathlib import Path

import gradio as gr


def moved(path):
    return str(Path(path).rename("moved.txt"))


gr.Interface(moved, gr.File(), gr.File()).launch()
