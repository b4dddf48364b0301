from pathlib import Path
from tempfile import mkdtemp

import gradio as gr


def draw(colour: str = "red"):
    """Draw a square.

    Args:
        colour: Its colour.
    """
    path = Path(mkdtemp(), "square.svg")
    square = f'<rect width="8" height="8" fill="{colour}"/>'
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{square}</svg>')
    return str(path)


gr.Interface(draw, gr.Textbox("red"), gr.Image(type="filepath"), api_name="draw").launch(
    mcp_server=True
)
