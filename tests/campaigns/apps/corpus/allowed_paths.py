import tempfile
from pathlib import Path

import gradio as gr

shelf = Path(tempfile.mkdtemp())
(shelf / "open.txt").write_text("For everyone.")

with gr.Blocks() as demo:
    gr.HTML(f'<a href="/gradio_api/file={shelf}/open.txt">open</a>')
    shown = gr.File()
    gr.Button("Get").click(lambda: str(shelf / "open.txt"), None, shown)

demo.launch(allowed_paths=[str(shelf)])
