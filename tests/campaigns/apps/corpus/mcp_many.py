import wave
from pathlib import Path
from tempfile import mkdtemp

import gradio as gr
from PIL import Image


def square(colour: str) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def text(name: str) -> str:
    path = Path(mkdtemp(), name)
    path.write_text(name)
    return str(path)


def several(colour: str = "red"):
    """Make a file of each kind.

    Args:
        colour: The colour of the pictures.
    """
    tone = Path(mkdtemp(), "tone.wav")
    with wave.open(str(tone), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    return (
        [square(colour), (square("blue"), "blue")],
        (square(colour), square("blue")),
        (square(colour), [((0, 0, 4, 4), "a corner")]),
        str(tone),
        [text("one.txt"), text("two.txt")],
        [{"role": "assistant", "content": {"path": text("said.txt")}}],
        text("loaded.txt"),
    )


with gr.Blocks() as demo:
    colour = gr.Textbox("red")
    outputs = [
        gr.Gallery(format="png"),
        gr.ImageSlider(format="png"),
        gr.AnnotatedImage(format="png"),
        gr.Audio(),
        gr.Files(),
        gr.Chatbot(),
        gr.DownloadButton(),
    ]
    gr.Button("Make").click(several, colour, outputs, api_name="several")

demo.launch(mcp_server=True)
