import gradio as gr


def same(path):
    return path


gr.Interface(same, gr.Image(type="filepath", sources=["clipboard"]), gr.File()).launch()
