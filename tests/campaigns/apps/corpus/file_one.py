from pathlib import Path

import gradio as gr


def upper(path):
    made = Path(path).with_suffix(".upper.txt")
    made.write_text(Path(path).read_text().upper())
    return str(made)


gr.Interface(upper, gr.File(), gr.File()).launch()
