import gradio as gr

with gr.Blocks() as demo:
    kept = gr.BrowserState({"count": 0})
    file = gr.File()
    file.upload(lambda value: {"count": value["count"] + 1}, kept, kept)

demo.launch()
