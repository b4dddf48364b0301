from pathlib import Path

import gradio as gr


def names(paths):
    return sorted(Path(path).name for path in paths), paths


gr.Interface(names, gr.File(file_count="directory"), [gr.JSON(), gr.File()]).launch()
