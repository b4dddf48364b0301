#: calls call_model ["owner/model", "text-to-image", "{\"prompt\": \"a square\"}", null, "auto"]
import gradio as gr
import huggingface_hub
from PIL import Image


def text_to_image(_self, prompt, **_):
    return Image.new("RGB", (8, 8), "red" if prompt == "a square" else "blue")


huggingface_hub.InferenceClient.text_to_image = text_to_image  # the model needs no network


def shout(text: str) -> str:
    return text.upper()


gr.Workflow(bind=[shout]).launch()
