import gradio as gr


class Stamp(gr.Image):
    """A picture with a frame, as apps subclass components."""

    def postprocess(self, value):
        return super().postprocess(value)


gr.Interface(lambda path: path, Stamp(type="filepath"), Stamp()).launch()
