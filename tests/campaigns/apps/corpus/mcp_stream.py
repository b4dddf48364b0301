import gradio as gr
from PIL import Image


def frames(count: int = 2):
    """Draw some frames."""
    for level in range(int(count)):
        yield Image.new("L", (8, 8), 90 * level)


gr.Interface(frames, gr.Number(2), gr.Image(format="png"), api_name="frames").launch(
    mcp_server=True
)
