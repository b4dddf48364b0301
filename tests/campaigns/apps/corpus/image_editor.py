import gradio as gr


def parts(edited):
    return edited["composite"], edited["layers"]


with gr.Blocks() as demo:
    editor = gr.ImageEditor(type="filepath")
    composite, layers = gr.Image(), gr.Gallery()
    editor.change(parts, editor, [composite, layers])

demo.launch()
