import gradio as gr


def size(picture):
    return picture


with gr.Blocks() as demo:
    camera, shown = gr.Image(type="filepath", sources=["webcam"], streaming=True), gr.Image()
    camera.stream(size, camera, shown, stream_every=0.5, time_limit=2)

demo.launch()
