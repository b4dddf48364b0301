import tempfile
from pathlib import Path

import gradio as gr

server = gr.Server()


@server.api(name="shout")
def shout(text: str) -> str:
    return text.upper()


@server.api(name="write")
def write(text: str) -> gr.FileData:
    path = Path(tempfile.mkdtemp()) / "written.txt"
    path.write_text(text)
    return gr.FileData(path=str(path))


@server.get("/")
def page():
    return {"message": "Hello"}


server.launch()
