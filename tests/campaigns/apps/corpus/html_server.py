#: calls drawn "green"
import gradio as gr
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image


def drawn(colour: str) -> str:
    path = save_pil_to_cache(Image.new("RGB", (8, 8), colour), get_upload_folder(), format="png")
    return f'<img src="/gradio_api/file={path}">'


with gr.Blocks() as demo:
    gr.HTML("<button>Draw</button>", server_functions=[drawn])

demo.launch()
