import gradio as gr


def turn(picture):
    """Turn a picture."""
    return picture.rotate(90, expand=True)


gr.Interface(turn, gr.Image(type="pil"), gr.Image(format="png"), api_name="turn").launch(
    mcp_server=True
)
