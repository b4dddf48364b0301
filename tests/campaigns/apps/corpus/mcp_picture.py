import gradio as gr
from PIL import Image


def draw(colour: str = "red"):
    """Draw a square.

    Args:
        colour: Its colour.
    """
    return Image.new("RGB", (8, 8), colour)


gr.Interface(draw, gr.Textbox("red"), gr.Image(format="png"), api_name="draw").launch(
    mcp_server=True
)
