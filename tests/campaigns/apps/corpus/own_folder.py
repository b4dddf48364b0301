import os
import secrets
from pathlib import Path

import gradio as gr


def kept(path):
    folder = Path(os.environ["GRADIO_TEMP_DIR"]) / "mine" / secrets.token_hex(16)
    folder.mkdir(parents=True)
    made = folder / "copy.txt"
    made.write_bytes(Path(path).read_bytes())
    return str(made)


gr.Interface(kept, gr.File(), gr.File()).launch()
