import gradio as gr


def same(path):
    return path


gr.Interface(same, gr.Video(), gr.Video()).launch()
