import functools

import gradio as gr
from gradio.utils import BaseReloader
from PIL import Image


class Reloader(BaseReloader):
    def __init__(self, app):
        self.app = app

    @property
    def running_app(self):
        return self.app


def build(colour):
    with gr.Blocks() as built:
        picture = gr.Image(format="png")
        gr.Button("Draw").click(lambda: Image.new("RGB", (8, 8), colour), None, picture)
        gr.Button("Reload").click(functools.partial(reload, "navy"), None, None)
    return built


def reload(colour):
    new = build(colour)
    Reloader(demo.app).swap_blocks(new)
    new.config = new.get_config_file()


demo = build("red")
demo.launch()
