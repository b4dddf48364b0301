import gradio as gr


def same(path):
    return path


gr.Interface(same, gr.Model3D(), gr.Model3D()).launch()
