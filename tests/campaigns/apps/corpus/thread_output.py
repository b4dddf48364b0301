import tempfile
import threading
from pathlib import Path

import gradio as gr


def written(text):
    path = Path(tempfile.mkdtemp()) / "thread.txt"
    worker = threading.Thread(target=path.write_text, args=(text,))
    worker.start()
    worker.join()
    return str(path)


gr.Interface(written, gr.Textbox("from a thread"), gr.File()).launch()
